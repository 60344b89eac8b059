"""Small vocabularies in the formats of checkpoints, for the tests of tokenizers."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import sentencepiece
from gguf import GGUFWriter, TokenType
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests.integration.tokenizer_texts import corpus

BOS, EOS, END_OF_TURN = "<s>", "</s>", "<|im_end|>"


@cache
def byte_level_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Tokens with a letter for each byte, and merges that cross all that a text may be cut at."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=2500,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=12,
    )
    texts = (text.replace(END_OF_TURN, "") for text in corpus())
    tokenizer.train_from_iterator(texts, trainer)
    state = orjson.loads(tokenizer.to_str())["model"]
    return state["vocab"], [(left, right) for left, right in state["merges"]]


@cache
def ranks() -> list[bytes]:
    """The same tokens as byte strings, by rank: first the bytes, then what is merged."""
    byte_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
    vocabulary, _ = byte_level_vocabulary()
    merged = [token for token in vocabulary if len(token) > 1]
    return [
        *(bytes([byte]) for byte in range(256)),
        *(bytes(byte_of[letter] for letter in token) for token in merged),
    ]


def write_ranks(path: Path, tokens: Sequence[bytes]) -> None:
    """A file of tiktoken's."""
    lines = [base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens)]
    path.write_bytes(b"".join(lines))


def write_sentencepiece(path: Path, **options: Any) -> sentencepiece.SentencePieceProcessor:
    """Trains a model with bytes for what has no piece; returns what reads it."""
    model = io.BytesIO()
    settings: dict[str, Any] = {
        "model_type": "bpe",
        "vocab_size": 900,
        "byte_fallback": True,
        "character_coverage": 0.98,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "split_digits": True,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in corpus() for line in text.splitlines()),
        model_writer=model,
        **settings | options,
    )
    path.write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def write_gguf(
    path: Path,
    *,
    model: str,
    tokens: Sequence[str],
    kinds: Sequence[int],
    architecture: str = "llama",
    cut: str | None = None,
    name: str | None = None,
    merges: Sequence[tuple[str, str]] | None = None,
    scores: Sequence[float] | None = None,
    ids: Mapping[str, int] | None = None,
    flags: Mapping[str, bool] | None = None,
    template: str | None = None,
) -> Path:
    """A GGUF file with a tokenizer and no weights; `ids` as in `tokenizer.ggml.{}_token_id`."""
    writer = GGUFWriter(path, architecture)
    writer.add_tokenizer_model(model)
    if name is not None:
        writer.add_name(name)
    if cut is not None:
        writer.add_tokenizer_pre(cut)
    writer.add_token_list(list(tokens))
    writer.add_token_types(list(kinds))
    if merges is not None:
        writer.add_token_merges([f"{left} {right}" for left, right in merges])
    if scores is not None:
        writer.add_token_scores(list(scores))
    for key, index in (ids or {}).items():
        writer.add_uint32(f"tokenizer.ggml.{key}_token_id", index)
    for key, flag in (flags or {}).items():
        writer.add_bool(f"tokenizer.ggml.{key}", flag)
    if template is not None:
        writer.add_chat_template(template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def write_byte_level_gguf(path: Path, cut: str | None, **options: Any) -> Path:
    """Byte-level BPE with a beginning, an end, a token of the chat and one of tools."""
    vocabulary, merges = byte_level_vocabulary()
    special = {
        BOS: TokenType.CONTROL,
        EOS: TokenType.CONTROL,
        END_OF_TURN: TokenType.CONTROL,
        "<tool>": TokenType.USER_DEFINED,
    }
    tokens = [*sorted(vocabulary, key=lambda token: vocabulary[token]), *special]
    ids = {"bos": tokens.index(BOS), "eos": tokens.index(EOS)}
    return write_gguf(
        path,
        model="gpt2",
        cut=cut,
        tokens=tokens,
        kinds=[*[TokenType.NORMAL] * len(vocabulary), *special.values()],
        merges=merges,
        ids=ids,
        **options,
    )


def write_sentencepiece_gguf(
    path: Path,
    reader: sentencepiece.SentencePieceProcessor,
    *,
    cut: str = "default",
    more: Mapping[str, TokenType] | None = None,
    **options: Any,
) -> Path:
    """What llama.cpp's converter makes of a SentencePiece model, and `more` tokens."""
    more = more or {}
    indices = range(reader.vocab_size())
    return write_gguf(
        path,
        model="llama",
        cut=cut,
        tokens=[*(reader.id_to_piece(i) for i in indices), *more],
        scores=[*(reader.get_score(i) for i in indices), *[0.0] * len(more)],
        kinds=[*(_kind(reader, i) for i in indices), *more.values()],
        ids={"bos": reader.bos_id(), "eos": reader.eos_id(), "unknown": reader.unk_id()},
        **options,
    )


def _kind(reader: sentencepiece.SentencePieceProcessor, index: int) -> TokenType:
    if reader.is_unknown(index):
        return TokenType.UNKNOWN
    if reader.is_control(index):
        return TokenType.CONTROL
    return TokenType.BYTE if reader.is_byte(index) else TokenType.NORMAL
