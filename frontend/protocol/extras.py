"""Fields that chat completions and completions share, beyond the native surface's.

Source: OpenAI's API description 2.3.0; vLLM's SamplingParams and its OpenAI server's extras.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import msgspec

from frontend.protocol.limits import NOT_EMPTY, between, entries
from frontend.protocol.parse import check_range
from frontend.protocol.sampling import MAX_INT32, SamplingFields
from frontend.protocol.structured import Choices, StructuredOutputs
from frontend.types import Guide

MAX_SEQUENCES = 128  # OpenAI's limit
MAX_STOP_TOKENS = 64
MAX_BAD_WORDS = 256

Text = Annotated[str, NOT_EMPTY]
TokenId = Annotated[int, between(0, MAX_INT32)]


class ExtraFields(SamplingFields, kw_only=True, forbid_unknown_fields=True):
    """`None` is a field that was not given."""

    n: Annotated[int, between(1, MAX_SEQUENCES)] | None = None
    stream: bool | None = None
    user: str | None = None  # an end user's name for the caller's own records
    stop_token_ids: Annotated[list[TokenId], entries(0, MAX_STOP_TOKENS)] | None = None
    bad_words: Annotated[list[Text], entries(0, MAX_BAD_WORDS)] | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: Choices | None = None
    guided_grammar: str | None = None
    structured_outputs: StructuredOutputs | None = None
    priority: Annotated[int, between(-(2**31), MAX_INT32)] | None = None
    cache_salt: Text | None = None
    return_token_ids: bool | None = None

    def checked_stop_token_ids(self, vocab_size: int) -> tuple[int, ...]:
        """
        Raises:
            InvalidParameter: there is no such token.
        """
        for i, token_id in enumerate(self.stop_token_ids or ()):
            check_range(f"stop_token_ids[{i}]", token_id, 0, vocab_size - 1)
        return tuple(self.stop_token_ids or ())

    def cache_salt_number(self) -> int | None:
        """64 bits for the salt; equal salts have equal numbers."""
        if self.cache_salt is None:
            return None
        digest = hashlib.blake2b(self.cache_salt.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little")

    def extra_guides(self) -> list[tuple[str, Guide]]:
        """Each guide that is given, with its field's name."""
        single = StructuredOutputs(
            json=self.guided_json,
            regex=self.guided_regex,
            choice=self.guided_choice,
            grammar=self.guided_grammar,
        )
        guides = single.guides("guided_")
        if self.structured_outputs is not None:
            guides += self.structured_outputs.guides("structured_outputs.")
        return guides


class StreamOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # tolerated: nothing here pads its network packets
