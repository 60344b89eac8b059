"""Reads the tokenizer in a GGUF file.

What llama.cpp makes of the same file is the standard: src/llama-vocab.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gguf import GGUFReader, TokenType
from tokenizers import Tokenizer, normalizers

from build_engines.checkpoints.gguf_file import field, optional_field
from build_engines.errors import ConversionError
from build_engines.tokenizers.byte_level import byte_level
from build_engines.tokenizers.cuts import COMPOSING, CUTS, LLAMA3_LIKE
from build_engines.tokenizers.found import (
    DEFAULT_TEMPLATE,
    ROLES,
    FoundTokenizer,
    SpecialToken,
    add_tokens,
    surround,
)
from build_engines.tokenizers.sentencepiece import (
    Normalization,
    Piece,
    merged_pieces,
    sentencepiece_bpe,
)

_TEMPLATE = "tokenizer.chat_template"
_ROLE_KEYS = dict(zip(ROLES, ("bos", "eos", "unknown", "padding"), strict=True))
_END_KEYS = ("eot", "eos", "eom")  # a turn's end, a document's, a message's before a call
# Files of 2023 do not name their cut: it is that of their architecture.
_CUTS_OF_ARCHITECTURES = {
    "qwen": "qwen2",
    "qwen2": "qwen2",
    "falcon": "falcon",
    "starcoder": "starcoder",
    "starcoder2": "starcoder",
    "gpt2": "gpt-2",
    "gptneox": "gpt-2",
    "mpt": "mpt",
    "phi2": "phi-2",
    "bloom": "bloom",
    "command-r": "command-r",
    "stablelm": "stablelm2",
    "chatglm": "chatglm-bpe",
}
# llama.cpp takes these for special tokens even where the file does not say so.
_ALWAYS_CONTROL = frozenset(
    {"<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<end_of_turn>",
     "<|endoftext|>", "<|eom_id|>", "<EOT>", "<|end_of_text|>", "<｜end▁of▁sentence｜>"}
)  # fmt: skip
_STRIPPING_MODELS = ("phi-3", "phi3")
_NOT_STRIPPING = frozenset({"<unk>", "<s>", "<|endoftext|>"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Vocabulary:
    tokens: list[str]
    kinds: Sequence[int]  # of TokenType
    strips_right: bool  # special tokens take the white space behind them

    def ids(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self.tokens)}

    def special_tokens(self) -> Iterator[SpecialToken]:
        for token, kind in zip(self.tokens, self.kinds, strict=True):
            is_control = kind in (TokenType.CONTROL, TokenType.UNKNOWN) or token in _ALWAYS_CONTROL
            if is_control or kind == TokenType.USER_DEFINED:
                strips = self.strips_right and token not in _NOT_STRIPPING
                yield SpecialToken(text=token, is_control=is_control, strips_right=strips)


def read_gguf(reader: GGUFReader) -> FoundTokenizer:
    """Raises ConversionError for a tokenizer of another family, or a broken one."""
    vocabulary = _read_vocabulary(reader)
    family = field(reader, "tokenizer.ggml.model")
    if family == "gpt2":
        tokenizer, adds_bos = _byte_level(reader, vocabulary)
    elif family == "llama":
        tokenizer, adds_bos = _sentencepiece(reader, vocabulary), True
    elif family == "gemma4":
        tokenizer, adds_bos = _merged_pieces(reader, vocabulary), True
    else:
        raise ConversionError(
            f"GGUF tokenizer {family!r} is not supported: only gpt2, llama and gemma4 (byte-level "
            "BPE and SentencePiece's); convert the original Hugging Face checkpoint instead"
        )
    add_tokens(tokenizer, vocabulary.special_tokens())
    roles = _roles(reader, vocabulary.tokens)
    begin = roles.get("bos_token") if _flag(reader, "add_bos_token", adds_bos) else None
    end = roles.get("eos_token") if _flag(reader, "add_eos_token", False) else None
    surround(tokenizer, begin=begin, end=end)
    return FoundTokenizer(
        tokenizer=tokenizer,
        roles=roles,
        end_ids=tuple(dict.fromkeys(_declared_ends(reader, len(vocabulary.tokens)))),
        templates={name: _begun(text, begin) for name, text in _templates(reader).items()},
    )


def _begun(template: str, begin: str | None) -> str:
    """A chat template that begins with the token which the file wants before every text.

    llama.cpp puts it before prompts that come without.
    """
    if begin is None or "bos_token" in template or begin in template:
        return template
    return "{{ bos_token }}" + template


def _read_vocabulary(reader: GGUFReader) -> _Vocabulary:
    tokens: list[str] = field(reader, "tokenizer.ggml.tokens")
    tokens = [token or f"[EMPTY_{index}]" for index, token in enumerate(tokens)]
    if len(set(tokens)) != len(tokens):
        raise ConversionError("the tokenizer has two tokens of the same text")
    kinds = optional_field(reader, "tokenizer.ggml.token_type") or [TokenType.NORMAL] * len(tokens)
    if len(kinds) != len(tokens):
        raise ConversionError(
            f"the GGUF file has {len(tokens)} tokens and the types of {len(kinds)}"
        )
    name = str(optional_field(reader, "general.name") or "").lower()
    return _Vocabulary(
        tokens=tokens,
        kinds=kinds,
        strips_right=any(model in name for model in _STRIPPING_MODELS),
    )


def _byte_level(reader: GGUFReader, vocabulary: _Vocabulary) -> tuple[Tokenizer, bool]:
    """The tokenizer, and whether it begins a text by default."""
    cut = optional_field(reader, "tokenizer.ggml.pre") or "default"
    if cut == "default":
        architecture = field(reader, "general.architecture")
        cut = _CUTS_OF_ARCHITECTURES.get(architecture, cut)
    if cut not in CUTS:
        raise ConversionError(
            f"GGUF pre-tokenizer {cut!r} is not supported: choose a model with one of "
            f"{', '.join(sorted(CUTS))}"
        )
    tokenizer = byte_level(
        vocabulary.ids(),
        _merges(reader),
        CUTS[cut],
        keeps_words=cut in LLAMA3_LIKE or cut == "minicpm5",
    )
    if cut in COMPOSING:
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer, cut in LLAMA3_LIKE


def _merged_pieces(reader: GGUFReader, vocabulary: _Vocabulary) -> Tokenizer:
    unknown = _roles(reader, vocabulary.tokens).get("unk_token")
    return merged_pieces(vocabulary.ids(), _merges(reader), unknown=unknown)


def _merges(reader: GGUFReader) -> list[tuple[str, str]]:
    return [_pair(merge) for merge in field(reader, "tokenizer.ggml.merges")]


def _pair(merge: str) -> tuple[str, str]:
    middle = merge.find(" ", 1)  # the first part may be a space itself
    return merge[:middle], merge[middle + 1 :]


def _sentencepiece(reader: GGUFReader, vocabulary: _Vocabulary) -> Tokenizer:
    scores = field(reader, "tokenizer.ggml.scores")
    if len(scores) != len(vocabulary.tokens):
        raise ConversionError(
            f"the GGUF file has {len(vocabulary.tokens)} tokens and the scores of {len(scores)}"
        )
    pieces = [
        Piece(
            text=text, score=score, is_mergeable=kind in (TokenType.NORMAL, TokenType.USER_DEFINED)
        )
        for text, score, kind in zip(vocabulary.tokens, scores, vocabulary.kinds, strict=True)
    ]
    normalization = Normalization(adds_space=_flag(reader, "add_space_prefix", True))
    unknown = _roles(reader, vocabulary.tokens).get("unk_token")
    return sentencepiece_bpe(pieces, normalization, unknown=unknown)


def _flag(reader: GGUFReader, name: str, default: bool) -> bool:
    found = optional_field(reader, f"tokenizer.ggml.{name}")
    return default if found is None else bool(found)


def _roles(reader: GGUFReader, tokens: list[str]) -> dict[str, str]:
    ids = {
        role: optional_field(reader, f"tokenizer.ggml.{key}_token_id")
        for role, key in _ROLE_KEYS.items()
    }
    return {
        role: tokens[index]
        for role, index in ids.items()
        if index is not None and index < len(tokens)
    }


def _declared_ends(reader: GGUFReader, num_tokens: int) -> Iterator[int]:
    for key in _END_KEYS:
        index = optional_field(reader, f"tokenizer.ggml.{key}_token_id")
        if index is not None and index < num_tokens:
            yield index


def _templates(reader: GGUFReader) -> dict[str, str]:
    named = {
        key.removeprefix(f"{_TEMPLATE}."): field(reader, key)
        for key in reader.fields
        if key.startswith(f"{_TEMPLATE}.")
    }
    default = optional_field(reader, _TEMPLATE)
    return named if default is None else {DEFAULT_TEMPLATE: default, **named}
