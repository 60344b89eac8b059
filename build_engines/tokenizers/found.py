"""What the readers of every format hand over: a tokenizer, its tokens with a role, templates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tokenizers import AddedToken, Tokenizer, processors

from build_engines.errors import ConversionError

DEFAULT_TEMPLATE = "default"
ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")  # as tokenizer_config.json has them


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTokenizer:
    """A checkpoint's tokenizer.

    `end_ids` are the tokens that the checkpoint says end an answer, the most usual one first.
    """

    tokenizer: Tokenizer
    roles: Mapping[str, str]  # of ROLES -> token
    end_ids: tuple[int, ...]
    templates: Mapping[str, str] = field(default_factory=dict)  # name -> chat template


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialToken:
    """A token that is found in a text before anything else is.

    `is_control`: not a part of the text, left out where special tokens are skipped.
    """

    text: str
    is_control: bool = True
    strips_right: bool = False  # takes the white space behind it
    is_normalized: bool = False  # is looked for in the normalized text


def add_tokens(tokenizer: Tokenizer, tokens: Iterable[SpecialToken]) -> None:
    """Makes tokens of the vocabulary special. Raises ConversionError if one is not of it."""
    control: list[AddedToken] = []
    other: list[AddedToken] = []
    for token in tokens:
        if tokenizer.token_to_id(token.text) is None:
            raise ConversionError(f"the tokenizer's special token {token.text} has no id")
        added = AddedToken(
            token.text,
            special=token.is_control,
            normalized=token.is_normalized,
            rstrip=token.strips_right,
            single_word=token.text.isalpha(),  # ChatGLM3's "sop" is not in "philosophy"
        )
        (control if token.is_control else other).append(added)
    tokenizer.add_special_tokens(control)
    tokenizer.add_tokens(other)


def surround(tokenizer: Tokenizer, *, begin: str | None, end: str | None) -> None:
    """Puts tokens around every bare text."""
    before, after = ([begin] if begin else []), ([end] if end else [])
    named = [(piece, tokenizer.token_to_id(piece)) for piece in dict.fromkeys([*before, *after])]
    if named:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[*before, "$A", *after],
            pair=[*before, "$A", *after, *(f"{piece}:1" for piece in (*before, "$B", *after))],
            special_tokens=named,
        )
