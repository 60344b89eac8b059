"""The sampling fields that all surfaces share."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from frontend.errors import InvalidParameter
from frontend.protocol.limits import NOT_EMPTY, between, check_limits, entries
from frontend.protocol.parse import check_range
from frontend.types import SamplingParams

MAX_STOP_STRINGS = 4  # OpenAI's limit
MAX_INT32 = 2**31 - 1
MAX_TOKEN_DIGITS = 10
TOKEN_IDS = Meta(
    extra_json_schema={"propertyNames": {"pattern": f"^[0-9]{{1,{MAX_TOKEN_DIGITS}}}$"}}
)

StopString = Annotated[str, NOT_EMPTY]


class SamplingFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`None` is a field that was not given: the neutral value."""

    model: str | None = None
    max_tokens: Annotated[int, between(1, MAX_INT32)] | None = None
    temperature: Annotated[float, between(0, 2)] | None = None
    top_p: Annotated[float, between(0, 1)] | None = None
    top_k: Annotated[int, between(-1, MAX_INT32)] | None = None
    min_p: Annotated[float, between(0, 1)] | None = None
    repetition_penalty: Annotated[float, between(0.01, 10)] | None = None
    presence_penalty: Annotated[float, between(-2, 2)] | None = None
    frequency_penalty: Annotated[float, between(-2, 2)] | None = None
    logit_bias: Annotated[dict[str, Annotated[float, between(-100, 100)]], TOKEN_IDS] | None = None
    seed: Annotated[int, between(-(2**63), 2**64 - 1)] | None = None
    min_tokens: Annotated[int, between(0, MAX_INT32)] | None = None
    ignore_eos: bool | None = None
    stop: StopString | Annotated[list[StopString], entries(0, MAX_STOP_STRINGS)] | None = None

    def check(self) -> None:
        """Refuse values out of range.

        Raises:
            InvalidParameter: names the field.
        """
        check_limits(self)

    def stop_strings(self) -> tuple[str, ...]:
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def sampling_params(self, vocab_size: int) -> SamplingParams:
        """The same in the engine's terms."""
        neutral = SamplingParams()
        top_p = neutral.top_p if self.top_p is None else self.top_p
        greedy_top_k = 1 if top_p == 0 else 0  # the limit of a shrinking nucleus: its best token
        return SamplingParams(
            temperature=neutral.temperature if self.temperature is None else self.temperature,
            top_p=top_p or neutral.top_p,
            top_k=greedy_top_k or max(self.top_k or 0, 0),
            min_p=self.min_p or 0.0,
            repetition_penalty=self.repetition_penalty or neutral.repetition_penalty,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            seed=None if self.seed is None else self.seed % 2**64,
            min_tokens=self.min_tokens or 0,
            logit_bias=self._logit_bias(vocab_size),
        )

    def _logit_bias(self, vocab_size: int) -> dict[int, float]:
        biases = {}
        for token, bias in (self.logit_bias or {}).items():
            param = f"logit_bias.{token}"
            if not token.isdecimal() or len(token) > MAX_TOKEN_DIGITS:
                raise InvalidParameter(param, "wrong_type", reason="keys are token ids")
            check_range(param, int(token), 0, vocab_size - 1)
            biases[int(token)] = bias
        return biases
