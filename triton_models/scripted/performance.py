"""One request's answer, step by step: which tokens each response brings, and how it ends.

Keeps to the request as a real engine does: length, end_id, min_tokens, stop words, sequences.
Knows nothing about time, threads or Triton.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from triton_models.contract import FinishReason
from triton_models.errors import EngineError
from triton_models.request import NO_END_ID, PromptLogProbs, SequenceStats, TokenEvent
from triton_models.scripted.script import PlannedLogProbs, Take
from triton_models.wire import WireRequest

# What a script does not say: the chosen token is likely, its alternatives are less and less so
LIKELY, UNLIKELY = -0.125, -4.0


class ScriptedError(EngineError):
    """The error that the scenario asks for."""


class Performance:
    """Not thread-safe."""

    def __init__(
        self, request: WireRequest, take: Take, *, max_new_tokens: int, vocab_size: int
    ) -> None:
        self._take = take
        self._sequences = [
            _Sequence(index, request, take, max_new_tokens, vocab_size)
            for index in range(request.num_sequences)
        ]
        self._unfinished = list(self._sequences)

    @property
    def is_finished(self) -> bool:
        """Whether every sequence has ended."""
        return not self._unfinished

    def step(self) -> list[list[TokenEvent]]:
        """The events of the next response of each sequence that has not ended; never empty lists.

        Raises ScriptedError.
        """
        responses = [sequence.play() for sequence in self._unfinished]
        self._unfinished = [one for one in self._unfinished if not one.is_finished]
        return responses

    def cancel(self) -> list[list[TokenEvent]]:
        """Ends the sequences that have not ended."""
        responses = [[one.end(FinishReason.CANCELLED)] for one in self._unfinished]
        self._unfinished = []
        return responses


class _Sequence:
    def __init__(
        self, index: int, request: WireRequest, take: Take, max_new_tokens: int, vocab_size: int
    ) -> None:
        self._index = index
        self._request = request
        self._scenario = take.scenario
        self._script = take.token_ids[index % len(take.token_ids)]
        self._log_probs = take.log_probs
        self._max_new_tokens = max_new_tokens
        self._vocab_size = vocab_size
        self._arrival_time_ns = time.monotonic_ns()
        self._first_token_time_ns = 0
        self._token_ids: list[int] = []
        self._cum_log_prob = 0.0
        self.is_finished = False

    def play(self) -> list[TokenEvent]:
        """The events of one response."""
        events: list[TokenEvent] = []
        if self._max_new_tokens == 0:
            events.append(self.end(FinishReason.LENGTH))
        while len(events) < self._scenario.tokens_per_response and not self.is_finished:
            if self._fails_now():
                if events:
                    break  # what came before it is sent before it
                raise ScriptedError(self._scenario.error)
            token_id = self._next_token_id()
            events.append(self.end(self._reason) if token_id is None else self._emit(token_id))
        return events

    def end(self, reason: FinishReason) -> TokenEvent:
        """Its end, without a token."""
        is_first = not self._token_ids
        self.is_finished = True
        return TokenEvent(
            sequence_index=self._index,
            cum_log_prob=self._cum_log_prob,
            finish_reason=reason,
            stats=self._stats(),
            prompt_log_probs=self._prompt_log_probs() if is_first else None,
        )

    @property
    def _reason(self) -> FinishReason:
        is_stop = self._scenario.finish == "stop"
        return FinishReason.END_ID if is_stop else FinishReason.LENGTH

    def _fails_now(self) -> bool:
        if self._scenario.error is None:
            return False
        num_tokens = len(self._token_ids)
        return num_tokens >= self._scenario.error_after or self._next_token_id() is None

    def _next_token_id(self) -> int | None:
        """None: the answer is over.

        A request that must not end hears a token that it stops at, or else the script again.
        """
        request, num_tokens = self._request, len(self._token_ids)
        if num_tokens >= len(self._script):
            must_go_on = request.end_id == NO_END_ID or num_tokens < request.sampling.min_tokens
            if not self._script or self._scenario.finish == "length" or not must_go_on:
                return None
            for word in request.stop_words:
                if len(word) == 1 and num_tokens >= request.sampling.min_tokens:
                    return word[0]
        token_id = self._script[num_tokens % len(self._script)]
        return None if token_id == request.end_id else token_id

    def _emit(self, token_id: int) -> TokenEvent:
        planned = self._planned(token_id)
        is_first = not self._token_ids
        self._token_ids.append(token_id)
        self._cum_log_prob += planned.log_prob
        reason = self._reason_behind_token()
        self.is_finished = reason is not FinishReason.NONE
        top_ids, top_log_probs = self._top(planned)
        return TokenEvent(
            sequence_index=self._index,
            token_id=token_id,
            log_prob=planned.log_prob,
            cum_log_prob=self._cum_log_prob,
            top_ids=top_ids,
            top_log_probs=top_log_probs,
            finish_reason=reason,
            stats=self._stats() if is_first or self.is_finished else None,
            prompt_log_probs=self._prompt_log_probs() if is_first else None,
        )

    def _reason_behind_token(self) -> FinishReason:
        for word in self._request.stop_words:
            if tuple(self._token_ids[-len(word) :]) == word:
                return FinishReason.STOP_WORD
        num_tokens = len(self._token_ids)
        is_cut = self._scenario.finish == "length" and num_tokens == len(self._script)
        fails_next = self._scenario.error is not None
        if num_tokens >= self._max_new_tokens or (is_cut and not fails_next):
            return FinishReason.LENGTH
        return FinishReason.NONE

    def _planned(self, token_id: int) -> PlannedLogProbs:
        position = len(self._token_ids)
        if position < len(self._log_probs):
            return self._log_probs[position]
        return _likely(token_id)

    def _prompt_log_probs(self) -> PromptLogProbs | None:
        """Made up: every token is likely."""
        request = self._request
        if not request.returns_prompt_log_probs or self._index > 0:
            return None
        rows = [self._top(_likely(token_id)) for token_id in request.prompt_token_ids[1:]]
        shape = (len(rows), request.sampling.num_top_log_probs)
        return PromptLogProbs(
            log_probs=np.array([0.0] + [LIKELY] * len(rows), np.float32),
            top_ids=np.array([ids for ids, _ in rows], np.int32).reshape(shape),
            top_log_probs=np.array([values for _, values in rows], np.float32).reshape(shape),
        )

    def _top(self, planned: PlannedLogProbs) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """As many as were asked for; those that nobody has planned follow the planned ones."""
        num_top = self._request.sampling.num_top_log_probs
        ids, log_probs = list(planned.top_ids[:num_top]), list(planned.top_log_probs[:num_top])
        candidate = ids[0] if ids else 0
        while len(ids) < num_top:
            candidate = (candidate + 1) % self._vocab_size
            if candidate not in ids:
                log_probs.append(min([UNLIKELY, *log_probs]) - 1.0)
                ids.append(candidate)
        return np.array(ids, np.int32), np.array(log_probs, np.float32)

    def _stats(self) -> SequenceStats:
        now_ns = time.monotonic_ns()
        self._first_token_time_ns = self._first_token_time_ns or now_ns
        return SequenceStats(
            num_cached_tokens=self._scenario.num_cached_tokens,
            num_reused_blocks=0,
            num_new_blocks=0,
            arrival_time_ns=self._arrival_time_ns,
            first_scheduled_time_ns=self._arrival_time_ns,
            first_token_time_ns=self._first_token_time_ns,
            last_token_time_ns=now_ns,
        )


def _likely(token_id: int) -> PlannedLogProbs:
    return PlannedLogProbs(log_prob=LIKELY, top_ids=(token_id,), top_log_probs=(LIKELY,))
