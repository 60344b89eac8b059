"""Writes the tokenizer in a GGUF file as a plain `tokenizer.json` with config and chat template.

Byte-level BPE only. Needs neither torch nor the original tokenizer; no code of the model's is run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from gguf import GGUFReader, TokenType
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from build_engines.errors import ConversionError
from build_engines.gguf_file import field, optional_field


def _gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _single_digits() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


# How text is cut before the merges, by `tokenizer.ggml.pre`; as in llama.cpp's llama-vocab.cpp.
PRE_TOKENIZERS: dict[str, Callable[[], pre_tokenizers.PreTokenizer]] = {
    "gpt-2": _gpt2,
    "smollm": _single_digits,
}


def write_tokenizer(reader: GGUFReader, directory: Path, max_seq_len: int) -> None:
    """Writes tokenizer.json, tokenizer_config.json and, if the model has one, chat_template.jinja.

    Raises ConversionError for a tokenizer of another family.
    """
    tokens: list[str] = field(reader, "tokenizer.ggml.tokens")
    directory.mkdir(parents=True, exist_ok=True)
    make_tokenizer(reader, tokens).save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_seq_len,
        "clean_up_tokenization_spaces": False,
        **_named_tokens(reader, tokens),
    }
    (directory / "tokenizer_config.json").write_bytes(
        orjson.dumps(config, option=orjson.OPT_INDENT_2)
    )
    template = optional_field(reader, "tokenizer.chat_template")
    if template is not None:
        (directory / "chat_template.jinja").write_text(template, encoding="utf-8")


def make_tokenizer(reader: GGUFReader, tokens: list[str]) -> Tokenizer:
    """The tokenizer of a GGUF file with the given `tokenizer.ggml.tokens`."""
    family = field(reader, "tokenizer.ggml.model")
    cut = optional_field(reader, "tokenizer.ggml.pre")
    if family != "gpt2" or cut not in PRE_TOKENIZERS:
        known = ", ".join(PRE_TOKENIZERS)
        raise ConversionError(
            f"tokenizer {family} with pre-tokenizer {cut} is not supported: only gpt2 with {known}"
        )
    merges = [_pair(merge) for merge in field(reader, "tokenizer.ggml.merges")]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[cut]()
    tokenizer.decoder = decoders.ByteLevel()
    for token, kind in zip(tokens, field(reader, "tokenizer.ggml.token_type"), strict=True):
        if kind in (TokenType.CONTROL, TokenType.USER_DEFINED):
            special = kind == TokenType.CONTROL
            added = AddedToken(token, special=special, normalized=False)
            (tokenizer.add_special_tokens if special else tokenizer.add_tokens)([added])
    return tokenizer


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _named_tokens(reader: GGUFReader, tokens: list[str]) -> dict[str, Any]:
    names = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
    ids = {
        name: optional_field(reader, f"tokenizer.ggml.{key}_token_id")
        for key, name in names.items()
    }
    return {name: tokens[index] for name, index in ids.items() if index is not None}
