"""The engine's step loop: one thread schedules, computes, samples and reports, over and over.

`submit`, `cancel` and `close` may be called from any thread. Knows nothing about Triton or text.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triton_models.batching import sampler
from triton_models.batching.backend import Backend, Chunk
from triton_models.batching.log_probs import PromptLogProbsCollector
from triton_models.batching.sampler import Sampled
from triton_models.batching.scheduler import Scheduler
from triton_models.batching.sequence import RequestState, Sequence
from triton_models.contract import FinishReason
from triton_models.errors import EngineClosedError, PromptTooLongError, QueueFullError
from triton_models.request import EngineRequest, PromptLogProbs, TokenEvent

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatcherLimits:
    """How much the batcher takes on."""

    max_seq_len: int  # tokens of prompt and output
    max_input_len: int  # tokens of the prompt
    max_num_sequences: int = 64  # in the batch at once
    max_num_tokens: int = 256  # in one step
    max_queue_size: int = 256  # requests that wait for a place in the batch


@dataclass(frozen=True, slots=True, kw_only=True)
class BatcherStats:
    """A snapshot for metrics; sequences are counted, not requests."""

    num_active: int
    num_scheduled: int
    num_waiting: int
    max_num_sequences: int
    max_blocks: int
    free_blocks: int  # without users; cached content in some
    used_blocks: int
    tokens_per_block: int
    reused_blocks: int  # taken from the prefix cache, ever
    num_steps: int
    num_preemptions: int


class Batcher:
    """Runs requests on a backend, together; `close` closes that too."""

    def __init__(self, backend: Backend, limits: BatcherLimits) -> None:
        self._backend = backend
        self._limits = limits
        # the last generated token needs no room: nothing is computed from it
        capacity = backend.num_blocks * backend.block_size + 1
        self.max_seq_len = min(limits.max_seq_len, capacity)
        self.max_input_len = min(limits.max_input_len, self.max_seq_len - 1)
        self._scheduler = Scheduler(
            backend,
            max_num_sequences=limits.max_num_sequences,
            max_num_tokens=limits.max_num_tokens,
        )
        self._inbox: queue.SimpleQueue[RequestState | int | None] = queue.SimpleQueue()
        self._states: dict[int, RequestState] = {}  # by handle; the step thread's own
        self._lock = threading.Lock()
        self._last_handle = 0
        self._num_queued = 0
        self._is_closed = False
        self._num_steps = 0
        self._num_reused_blocks = 0
        # What a step has brought is told while the next one computes: what the hearers do with it
        # needs the GIL, and would keep the next step from its start.
        self._outbox: list[tuple[EngineRequest, TokenEvent]] = []
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, request: EngineRequest) -> int:
        """Takes a request on; returns the handle to cancel it by.

        Raises PromptTooLongError, QueueFullError or EngineClosedError; afterwards errors come as
        events. More new tokens than the context has room for are cut to what it has.
        """
        num_tokens = len(request.prompt_token_ids)
        if num_tokens > self.max_input_len:
            raise PromptTooLongError(num_tokens, self.max_input_len)
        with self._lock:
            if self._is_closed:
                raise EngineClosedError
            if self._num_queued >= self._limits.max_queue_size:
                raise QueueFullError
            self._num_queued += 1
            self._last_handle += 1
            state = RequestState(handle=self._last_handle, request=request)
            self._inbox.put(state)
        return state.handle

    def cancel(self, handle: int) -> None:
        """Ends a request with one more event, within a step; one that has ended is left alone."""
        self._inbox.put(handle)

    def close(self) -> None:
        """Ends all requests with an error and the step thread with them."""
        with self._lock:
            self._is_closed = True
        self._inbox.put(None)
        self._thread.join()
        self._backend.close()

    def stats(self) -> BatcherStats:
        """Figures of this moment."""
        num_free = self._backend.num_free_blocks
        num_running = len(self._scheduler.running)
        num_waiting = len(self._scheduler.waiting)
        return BatcherStats(
            num_active=num_running + num_waiting,
            num_scheduled=num_running,
            num_waiting=num_waiting,
            max_num_sequences=self._limits.max_num_sequences,
            max_blocks=self._backend.num_blocks,
            free_blocks=num_free,
            used_blocks=self._backend.num_blocks - num_free,
            tokens_per_block=self._backend.block_size,
            reused_blocks=self._num_reused_blocks,
            num_steps=self._num_steps,
            num_preemptions=self._scheduler.num_preemptions,
        )

    # the step thread

    def _run(self) -> None:
        try:
            while self._work():
                pass
        finally:  # whatever has ended the thread: nobody waits for ever
            with self._lock:
                self._is_closed = True
            self._drain_inbox()
            self._fail(list(self._states.values()), str(EngineClosedError()))
            self._deliver()

    def _work(self) -> bool:
        """One step, or False when the batcher is closed. Whatever an engine does in it: its
        requests get an answer, and the next ones are taken."""
        concerned = None
        try:
            if not self._take_messages():
                return False
            chunks = self._scheduler.schedule()
            concerned = [chunk.sequence.state for chunk in chunks]
            self._step(chunks)
        except Exception as exc:
            logger.exception("step failed")
            states = list(self._states.values()) if concerned is None else concerned
            self._fail(states, f"Engine error: {exc}")
        return True

    def _take_messages(self) -> bool:
        """Applies what other threads asked for; waits when there is nothing to compute. False when
        the batcher is closed."""
        while True:
            has_work = self._scheduler.running or self._scheduler.waiting
            if has_work and self._inbox.empty():
                return True
            if not has_work:
                self._deliver()
            match self._inbox.get():
                case None:
                    return False
                case RequestState() as state:
                    self._start(state)
                case int() as handle if handle in self._states:
                    self._end(self._states[handle], FinishReason.CANCELLED)

    def _drain_inbox(self) -> None:
        """Registers requests that came together with the end, so that they are answered too."""
        while not self._inbox.empty():
            message = self._inbox.get()
            if isinstance(message, RequestState):
                self._states[message.handle] = message

    def _start(self, state: RequestState) -> None:
        request = state.request
        num_prompt_tokens = len(request.prompt_token_ids)
        num_tokens = min(num_prompt_tokens + request.max_new_tokens, self.max_seq_len)
        for index in range(request.num_sequences):
            guide = request.guide
            state.sequences.append(
                Sequence(
                    state=state,
                    index=index,
                    token_ids=list(request.prompt_token_ids),
                    num_prompt_tokens=num_prompt_tokens,
                    max_num_tokens=num_tokens,
                    rng=np.random.default_rng((request.sampling.seed, index)),
                    guide=guide.fork() if guide is not None else None,
                )
            )
        if request.returns_prompt_log_probs:
            num_top = request.sampling.num_top_log_probs
            collector = PromptLogProbsCollector(request.prompt_token_ids, num_top)
            state.sequences[0].prompt_log_probs = collector
        state.num_unfinished = request.num_sequences
        self._states[state.handle] = state
        self._scheduler.add(state.sequences[0])

    def _step(self, chunks: list[Chunk]) -> None:
        logits = self._backend.forward(chunks, self._deliver)
        self._num_steps += 1
        for chunk in chunks:
            self._scheduler.commit(chunk)
            if chunk.sequence.state.is_queued:
                self._leave_queue(chunk.sequence.state)
        if any(chunk.num_prompt_rows for chunk in chunks):
            logits = self._take_prompt_rows(chunks, logits)
        sequences = [chunk.sequence for chunk in chunks if chunk.is_sampled]
        if sequences:
            self._advance(sequences, logits)

    def _take_prompt_rows(
        self, chunks: list[Chunk], logits: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Gives the prompts' rows to those who collect them; returns the rows to sample from."""
        sampled: list[int] = []
        row = 0
        for chunk in chunks:
            collector, end = chunk.sequence.prompt_log_probs, row + chunk.num_prompt_rows
            if collector is not None:
                collector.add(logits[row:end])
            if chunk.is_sampled:
                sampled.append(end)
            row += chunk.num_rows
        return logits[sampled]

    def _advance(self, sequences: list[Sequence], logits: NDArray[np.float32]) -> None:
        now = time.monotonic_ns()
        likeliest = sampler.greedy(logits)
        for row, sequence in enumerate(sequences):
            if sequence.is_finished:
                continue  # failed in this very step, by another sequence of its request
            try:
                if sequence.state.request.max_new_tokens == 0:
                    self._end_at_prompt(sequence, now)
                    continue
                if sampler.is_plain(sequence):
                    sampled = Sampled(token_id=likeliest[row])
                else:
                    sampled = sampler.sample(logits[row], sequence)
                self._append(sequence, sampled, now)
            except Exception as exc:  # one request's sampling must not end the others
                logger.exception("sampling failed")
                self._fail([sequence.state], f"Engine error: {exc}")

    def _append(self, sequence: Sequence, sampled: Sampled, now_ns: int) -> None:
        """Takes a sampled token into its sequence and tells the request."""
        request = sequence.state.request
        token_id = sampled.token_id
        is_first = not sequence.first_token_time_ns
        if is_first:
            self._begin_output(sequence, now_ns)
        sequence.last_token_time_ns = now_ns
        if token_id is None or token_id == request.end_id:
            self._finish(sequence, FinishReason.END_ID)
            return
        sequence.token_ids.append(token_id)
        sequence.cum_log_prob += sampled.log_prob
        sampler.count_token(sequence, token_id, self._backend.vocab_size)
        if sequence.guide is not None:
            sequence.guide.accept(token_id)
        reason = _finish_reason(sequence)
        if reason is not FinishReason.NONE:
            self._finish(sequence, reason, sampled)
        else:
            self._emit(sequence, sampled, stats=is_first)

    def _end_at_prompt(self, sequence: Sequence, now_ns: int) -> None:
        self._begin_output(sequence, now_ns)
        self._finish(sequence, FinishReason.LENGTH)

    def _begin_output(self, sequence: Sequence, now_ns: int) -> None:
        """The prompt is computed: it can be shared by the request's other sequences."""
        sequence.first_token_time_ns = now_ns
        self._num_reused_blocks += sequence.num_reused_blocks
        state = sequence.state
        if not state.is_forked:
            state.is_forked = True
            for other in state.sequences[1:]:
                if not other.is_finished:
                    self._scheduler.add(other)

    def _emit(self, sequence: Sequence, sampled: Sampled, *, stats: bool) -> None:
        self._tell(
            sequence.state.request,
            TokenEvent(
                sequence_index=sequence.index,
                token_id=sampled.token_id,
                log_prob=sampled.log_prob,
                cum_log_prob=sequence.cum_log_prob,
                top_ids=sampled.top_ids,
                top_log_probs=sampled.top_log_probs,
                stats=sequence.stats() if stats else None,
                prompt_log_probs=_tell_prompt_log_probs(sequence),
            ),
        )

    def _finish(
        self, sequence: Sequence, reason: FinishReason, sampled: Sampled | None = None
    ) -> None:
        """Frees the sequence's memory and reports its end, with the last token if there is one."""
        state = sequence.state
        sequence.is_finished = True
        state.num_unfinished -= 1
        self._scheduler.remove(sequence)
        if state.num_unfinished == 0:
            self._forget(state)
        self._tell(
            state.request,
            TokenEvent(
                sequence_index=sequence.index,
                token_id=sampled.token_id if sampled else None,
                log_prob=sampled.log_prob if sampled else 0.0,
                cum_log_prob=sequence.cum_log_prob,
                top_ids=sampled.top_ids if sampled else None,
                top_log_probs=sampled.top_log_probs if sampled else None,
                finish_reason=reason,
                is_final=state.num_unfinished == 0,
                stats=sequence.stats(),
                prompt_log_probs=_tell_prompt_log_probs(sequence),
            ),
        )

    def _tell(self, request: EngineRequest, event: TokenEvent) -> None:
        self._outbox.append((request, event))

    def _deliver(self) -> None:
        outbox, self._outbox = self._outbox, []
        for request, event in outbox:
            request.on_event(event)

    def _end(self, state: RequestState, reason: FinishReason) -> None:
        for sequence in state.sequences:
            if not sequence.is_finished:
                self._finish(sequence, reason)

    def _fail(self, states: list[RequestState], error: str) -> None:
        for state in states:
            if state.handle not in self._states:
                continue  # failed already, by another of its sequences
            self._forget(state)
            self._tell(state.request, TokenEvent(sequence_index=0, is_final=True, error=error))
            for sequence in state.sequences:
                sequence.is_finished = True
                try:
                    self._scheduler.remove(sequence)
                except Exception:  # of an engine that is broken: the request has been told so
                    logger.exception("memory not taken back")

    def _forget(self, state: RequestState) -> None:
        del self._states[state.handle]
        if state.is_queued:
            self._leave_queue(state)

    def _leave_queue(self, state: RequestState) -> None:
        state.is_queued = False
        with self._lock:
            self._num_queued -= 1


def _tell_prompt_log_probs(sequence: Sequence) -> PromptLogProbs | None:
    """Once, when they are complete."""
    collector = sequence.prompt_log_probs
    if collector is None or not collector.is_complete:
        return None
    sequence.prompt_log_probs = None
    return collector.values


def _finish_reason(sequence: Sequence) -> FinishReason:
    """Whether the token just appended was the last."""
    output = sequence.num_output_tokens
    for word in sequence.state.request.stop_words:
        if len(word) <= output and sampler.ends_with(sequence.token_ids, word):
            return FinishReason.STOP_WORD
    if len(sequence.token_ids) >= sequence.max_num_tokens:
        return FinishReason.LENGTH
    return FinishReason.NONE
