"""The sampling fields that all surfaces share."""

from __future__ import annotations

import msgspec

from frontend.errors import InvalidParameter
from frontend.protocol.parse import check_range
from frontend.types import SamplingParams

MAX_STOP_STRINGS = 4  # OpenAI's limit
MAX_INT32 = 2**31 - 1
MAX_TOKEN_DIGITS = 10


class SamplingFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`None` is a field that was not given: the neutral value."""

    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    stop: str | list[str] | None = None

    def check(self) -> None:
        """Refuse values out of range.

        Raises:
            InvalidParameter: names the field.
        """
        check_range("max_tokens", self.max_tokens, 1, MAX_INT32)
        check_range("temperature", self.temperature, 0, 2)
        check_range("top_p", self.top_p, 0, 1)
        check_range("top_k", self.top_k, -1, MAX_INT32)
        check_range("min_p", self.min_p, 0, 1)
        check_range("repetition_penalty", self.repetition_penalty, 0.01, 10)
        check_range("presence_penalty", self.presence_penalty, -2, 2)
        check_range("frequency_penalty", self.frequency_penalty, -2, 2)
        check_range("min_tokens", self.min_tokens, 0, MAX_INT32)
        check_range("seed", self.seed, -(2**63), 2**64 - 1)
        stop = self.stop_strings()
        if len(stop) > MAX_STOP_STRINGS:
            raise InvalidParameter("stop", "too_many", count=len(stop), maximum=MAX_STOP_STRINGS)
        if "" in stop:
            raise InvalidParameter("stop", "empty")

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
            check_range(param, bias, -100, 100)
            biases[int(token)] = bias
        return biases
