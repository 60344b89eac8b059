"""The batcher's backend on llama.cpp: sequences in slots of one unified memory.

A prompt begins with the longest beginning that any slot has, of a running sequence or of one that
has ended. What has ended gives way, the longest ago first, when the cells are needed.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq

import numpy as np
from numpy.typing import NDArray

from triton_models.batching.backend import Chunk, nothing
from triton_models.batching.sequence import Sequence
from triton_models.llama_cpp.cells import CellTable
from triton_models.llama_cpp.model import Model, Span


class LlamaBackend:
    """Implements `Backend`; a block is a cell, for one token."""

    block_size = 1

    def __init__(self, model: Model, *, enable_prefix_cache: bool = True) -> None:
        self.vocab_size = model.vocab_size
        self.num_blocks = model.num_cells
        self._model = model
        self._keeps = enable_prefix_cache and model.can_share
        self._table = CellTable(model.num_cells, model.num_slots)
        self._slots: dict[Sequence, int] = {}

    @property
    def num_free_blocks(self) -> int:
        """See Backend."""
        return self.num_blocks - self._table.num_used

    def admit(self, sequence: Sequence, *, num_running: int) -> bool:
        """See Backend."""
        table = self._table
        source, num_shared = self._match(sequence)
        needed = table.num_needed(len(sequence.token_ids), source, num_shared)
        # one spare cell for each running sequence: else this one would soon be preempted again
        if num_running and needed + num_running > self.num_free_blocks:
            return False
        slot = self._choose(source, num_shared)
        if num_shared and slot == source:
            self._model.truncate(slot, num_shared)
        else:
            self._model.truncate(slot, 0)
            self._model.copy(source, slot, num_shared)
        table.open(slot, sequence.state.request.cache_salt, source, num_shared)
        self._slots[sequence] = slot
        sequence.num_computed = num_shared
        has_cells = self.grow(sequence)
        assert has_cells, "a sequence alone must fit"
        return True

    def grow(self, sequence: Sequence) -> bool:
        """See Backend."""
        slot = self._slots[sequence]
        missing = self._table.num_missing(slot, len(sequence.token_ids))
        if missing > self.num_free_blocks:
            return False
        for idle in self._table.idle_slots() if missing > self._table.num_free else ():
            self._model.truncate(idle, 0)
            self._table.empty(idle)
            if missing <= self._table.num_free:
                break
        if missing:
            self._table.take(slot, missing)
            sequence.num_new_blocks += missing
        return True

    def commit(self, sequence: Sequence) -> None:
        """See Backend."""
        slot = self._slots[sequence]
        known = self._table.num_filled(slot)
        self._table.fill(slot, sequence.token_ids[known : sequence.num_computed])

    def free(self, sequence: Sequence) -> None:
        """See Backend."""
        slot = self._slots.pop(sequence, None)
        if slot is None:
            return
        self._table.release(slot)
        if not self._keeps:
            self._table.empty(slot)
        # a step that failed may have left more there than was committed
        self._model.truncate(slot, self._table.num_filled(slot))

    def forward(
        self, chunks: Seq[Chunk], while_computing: Callable[[], None] = nothing
    ) -> NDArray[np.float32]:
        """See Backend."""
        spans = [
            Span(
                self._slots[chunk.sequence],
                chunk.sequence.token_ids[chunk.start : chunk.end],
                chunk.start,
                chunk.num_rows,
            )
            for chunk in chunks
        ]
        # Before, not beside it: the hearers are other threads, and run once the GIL is released
        while_computing()
        return self._model.forward(spans)

    def close(self) -> None:
        """See Backend."""
        self._model.close()

    def _choose(self, source: int, num_shared: int) -> int:
        """The idle slot to open: `source` if that loses nothing, or else the longest idle one."""
        idle = self._table.idle_slots()
        if num_shared:
            is_whole = num_shared == self._table.num_filled(source)
            if source in idle and (is_whole or len(idle) == 1):
                return source
            idle = [slot for slot in idle if slot != source]
        return idle[0]

    def _match(self, sequence: Sequence) -> tuple[int, int]:
        """The slot to begin with, and the number of its tokens."""
        if not self._keeps or sequence.prompt_log_probs is not None:
            return 0, 0  # nothing is kept, or the logits behind every token are wanted
        tokens = np.array(sequence.token_ids, np.int32)
        salt = sequence.state.request.cache_salt
        source, num_shared = self._table.longest_prefix(tokens, salt)
        if num_shared and not self._model.has_window(source, num_shared):
            return 0, 0
        return source, num_shared
