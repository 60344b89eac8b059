"""A llama.cpp that computes from what its cells hold, so that any mix-up of slots shows.

Its memory is the real one's: positions in cells, each cell of one slot or of several, so many and
no more.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.unit.triton_models.fake_model import VOCAB_SIZE, logits_of
from triton_models.llama_cpp.model import Span


@dataclass
class Cell:
    position: int
    token_id: int
    slots: set[int]


class FakeLlama:
    """The next token is a function of all tokens of its slot. Implements `Model`."""

    vocab_size = VOCAB_SIZE

    def __init__(self, num_cells: int, num_slots: int = 8, *, can_share: bool = True) -> None:
        self.num_cells = num_cells
        self.num_slots = num_slots
        self.can_share = can_share
        self.fail_on: int | None = None  # a token that no step survives
        self.fails_to_truncate = False
        self.lost_window_of: int | None = None
        self.is_closed = False
        self.cells: list[Cell] = []

    def forward(self, spans: Seq[Span]) -> NDArray[np.float32]:
        """See Model."""
        rows = []
        for span in spans:
            for position, token_id in enumerate(span.token_ids, span.start):
                assert token_id != self.fail_on, "the step failed"
                assert len(self.cells) < self.num_cells, "no cells are left"
                assert len(self.tokens(span.slot)) == position, "a hole, or two of one position"
                self.cells.append(Cell(position, token_id, {span.slot}))
            history = self.tokens(span.slot)
            first = len(history) - span.num_rows
            rows += [logits_of(history[: length + 1]) for length in range(first, len(history))]
        return np.array(rows, np.float32).reshape(-1, VOCAB_SIZE)

    def tokens(self, slot: int) -> list[int]:
        own = sorted((c for c in self.cells if slot in c.slots), key=lambda cell: cell.position)
        return [cell.token_id for cell in own]

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """See Model."""
        assert self.can_share or not num_tokens
        assert not self.tokens(target)
        for cell in self.cells:
            if source in cell.slots and cell.position < num_tokens:
                cell.slots.add(target)

    def truncate(self, slot: int, num_tokens: int) -> None:
        """See Model."""
        assert not self.fails_to_truncate, "a slot is stuck"
        assert self.can_share or not num_tokens
        for cell in self.cells:
            if cell.position >= num_tokens:
                cell.slots.discard(slot)
        self.cells = [cell for cell in self.cells if cell.slots]

    def has_window(self, slot: int, num_tokens: int) -> bool:
        """See Model."""
        return slot != self.lost_window_of

    def close(self) -> None:
        """See Model."""
        self.is_closed = True
