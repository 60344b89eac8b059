"""One sequence of the LLM API's output becomes token events. Pure: no LLM, no clock, no threads.

The API's `token_ids` and `logprobs` grow with every step (tensorrt_llm/executor/result.py,
CompletionOutput). Why a sequence ended is read off its tokens, because the API says it for the last
of several sequences only, and leaves an end token among the tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from triton_models.contract import FinishReason
from triton_models.errors import EngineError
from triton_models.request import NO_END_ID, EngineRequest, TokenEvent


class Completion(Protocol):
    """What is read of `tensorrt_llm.llmapi.CompletionOutput`."""

    @property
    def token_ids(self) -> Sequence[int]: ...
    @property
    def logprobs(self) -> Sequence[Any] | None:
        """For each token: id -> Logprob(logprob, rank), or a float."""

    @property
    def finish_reason(self) -> str | None:
        """stop, length, timeout or cancelled."""


class SequenceReader:
    """Remembers how much of a sequence was read."""

    def __init__(self, index: int, request: EngineRequest, max_new_tokens: int) -> None:
        self._index = index
        self._request = request
        self._max_new_tokens = max_new_tokens
        self._token_ids: list[int] = []
        self._cum_log_prob = 0.0
        self.reason = FinishReason.NONE

    def read(self, completion: Completion, *, is_last: bool) -> list[TokenEvent]:
        """The events of what is new; the last of a sequence tells its end.

        `is_last` says that the API gives no more. Raises EngineError for a request that timed out.
        """
        events: list[TokenEvent] = []
        if self.reason is not FinishReason.NONE:
            return events
        start = len(self._token_ids)
        for position, token_id in enumerate(completion.token_ids[start:], start):
            if token_id == self._request.end_id and token_id != NO_END_ID:
                self.reason = FinishReason.END_ID
                break
            events.append(self._event(token_id, completion, position))
            if self.reason is not FinishReason.NONE:
                return events
        if self.reason is FinishReason.NONE and is_last:
            self.reason = _reason_of(completion.finish_reason)
        if self.reason is not FinishReason.NONE:
            events.append(self.end(self.reason))
        return events

    def end(self, reason: FinishReason) -> TokenEvent:
        """The event of an end without a token."""
        self.reason = reason
        return TokenEvent(
            sequence_index=self._index, cum_log_prob=self._cum_log_prob, finish_reason=reason
        )

    def _event(self, token_id: int, completion: Completion, position: int) -> TokenEvent:
        self._token_ids.append(token_id)
        if any(self._ends_with(word) for word in self._request.stop_words):
            self.reason = FinishReason.STOP_WORD
        elif len(self._token_ids) >= self._max_new_tokens:
            self.reason = FinishReason.LENGTH
        sampling = self._request.sampling
        if not (sampling.return_log_probs or sampling.num_top_log_probs):
            return TokenEvent(
                sequence_index=self._index, token_id=token_id, finish_reason=self.reason
            )
        log_probs = completion.logprobs
        if log_probs is None or len(log_probs) <= position:
            raise EngineError(f"TensorRT-LLM gave no log-prob for token {position}")
        table = _table(log_probs[position], token_id)
        self._cum_log_prob += table[token_id]
        top = list(table.items())[: sampling.num_top_log_probs]
        return TokenEvent(
            sequence_index=self._index,
            token_id=token_id,
            log_prob=table[token_id],
            cum_log_prob=self._cum_log_prob,
            top_ids=np.array([other for other, _ in top], np.int32),
            top_log_probs=np.array([value for _, value in top], np.float32),
            finish_reason=self.reason,
        )

    def _ends_with(self, word: tuple[int, ...]) -> bool:
        return tuple(self._token_ids[-len(word) :]) == word


def _table(entry: Mapping[int, Any] | float, token_id: int) -> dict[int, float]:
    """Token id -> log-prob, likeliest first; the chosen token is in it, wherever it stands."""
    if not isinstance(entry, Mapping):
        return {token_id: float(entry)}
    if token_id not in entry:
        raise EngineError(f"TensorRT-LLM gave no log-prob for the chosen token {token_id}")
    by_rank = sorted(entry.items(), key=lambda item: -item[1].logprob)
    return {other: value.logprob for other, value in by_rank}


def _reason_of(finish_reason: str | None) -> FinishReason:
    """An end that the tokens do not tell."""
    match finish_reason:
        case "length":
            return FinishReason.LENGTH
        case "cancelled":
            return FinishReason.CANCELLED
        case "timeout":
            raise EngineError("TensorRT-LLM took too long")
        case _:  # the end token, where it is not among the tokens
            return FinishReason.END_ID
