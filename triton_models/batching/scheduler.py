"""Chooses what each step computes: decodes first, then chunks of prompts, in the sequences' order.

Takes memory back from the last in that order when it runs out (preemption by recompute). Knows
nothing about logits, events or threads, nor how the memory is cut up.
"""

from __future__ import annotations

import time
from bisect import insort
from operator import attrgetter

from triton_models.batching.backend import Backend, Chunk
from triton_models.batching.sequence import Sequence

# a chunk of a prompt has at least two tokens and leaves none or at least two
_MIN_PROMPT_BUDGET = 4

# Bounds the memory of a step's logits, however large a step is: 50 MB for 49,152 tokens
MAX_PROMPT_ROWS = 256

_order = attrgetter("order")


class Scheduler:
    """Waiting and running sequences over one backend's memory. Not thread-safe.

    Both are kept in the order of priority and age. Memory is only ever taken from later sequences,
    so the first always goes on, and one alone always fits (the batcher refuses what never could):
    only requests of a better priority can make a sequence wait for ever.
    """

    def __init__(self, backend: Backend, *, max_num_sequences: int, max_num_tokens: int) -> None:
        if max_num_tokens < max_num_sequences + _MIN_PROMPT_BUDGET:
            raise ValueError("a step must have room for a token of every sequence and a prompt")
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.num_preemptions = 0
        self._backend = backend
        self._max_num_sequences = max_num_sequences
        self._max_num_tokens = max_num_tokens

    def add(self, sequence: Sequence) -> None:
        """Puts a sequence into the queue, behind what has its priority and is older."""
        insort(self.waiting, sequence, key=_order)

    def remove(self, sequence: Sequence) -> None:
        """Takes a finished or cancelled sequence out, wherever it is, and frees its memory."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self._free(sequence)

    def schedule(self) -> list[Chunk]:
        """The next step's chunks; at most one of each sequence, empty when there is no work."""
        has_preempted = self._make_room()
        chunks: list[Chunk] = []
        budget = self._max_num_tokens
        for sequence in self.running:
            if sequence.num_remaining == 1:
                chunks.append(Chunk(sequence, sequence.num_computed, len(sequence.token_ids)))
                budget -= 1
        for sequence in self.running:
            if budget > 0 and sequence.num_remaining > 1:
                budget -= self._add_chunk(chunks, sequence, budget)
        while budget >= _MIN_PROMPT_BUDGET and not has_preempted:
            admitted = self._admit_next()
            if admitted is None:
                break
            budget -= self._add_chunk(chunks, admitted, budget)
        return chunks

    def commit(self, chunk: Chunk) -> None:
        """Notes that a chunk was computed."""
        chunk.sequence.num_computed = chunk.end
        self._backend.commit(chunk.sequence)

    def _add_chunk(self, chunks: list[Chunk], sequence: Sequence, budget: int) -> int:
        """Adds what fits of a prompt; returns the number of tokens.

        Never a single token out of a longer prompt: the model computes that by another kernel,
        whose result differs in the last bits.
        """
        num_tokens = min(sequence.num_remaining, budget)
        if sequence.prompt_log_probs is not None:
            num_left = MAX_PROMPT_ROWS - sum(chunk.num_prompt_rows for chunk in chunks)
            num_tokens = min(num_tokens, num_left)
        start = sequence.num_computed
        num_prompt_left = sequence.num_prompt_tokens - start
        if num_prompt_left - num_tokens == 1:
            num_tokens -= 1
        if num_tokens < min(num_prompt_left, 2):
            return 0
        end = start + num_tokens
        wanted = sequence.prompt_log_probs
        chunks.append(Chunk(sequence, start, end, wanted.num_rows(end) if wanted else 0))
        return num_tokens

    def _make_room(self) -> bool:
        """Gives every running sequence the room for its tokens; true if that cost another its
        place."""
        has_preempted = False
        index = 0
        while index < len(self.running):
            sequence = self.running[index]
            while not self._backend.grow(sequence):
                has_preempted = True
                if self._preempt_last() is sequence:
                    break
            index += 1
        return has_preempted

    def _preempt_last(self) -> Sequence:
        sequence = self.running.pop()
        self._free(sequence)
        self.add(sequence)
        self.num_preemptions += 1
        return sequence

    def _admit_next(self) -> Sequence | None:
        """Moves the head of the queue into the batch, with room for all its tokens."""
        if not self.waiting or len(self.running) >= self._max_num_sequences:
            return None
        sequence = self.waiting[0]
        if not self._backend.admit(sequence, num_running=len(self.running)):
            return None
        self.waiting.pop(0)
        insort(self.running, sequence, key=_order)
        if not sequence.first_scheduled_time_ns:
            sequence.first_scheduled_time_ns = time.monotonic_ns()
            sequence.num_cached_tokens = sequence.num_computed
            sequence.num_reused_blocks = sequence.num_computed // self._backend.block_size
        return sequence

    def _free(self, sequence: Sequence) -> None:
        self._backend.free(sequence)
        sequence.num_computed = 0
