"""Which cell of llama.cpp's unified memory belongs to which slots: the count that its API lacks.

A slot (llama.cpp: sequence id) is in use by a running sequence, or idle: its tokens' keys and
values stay for prompts that begin like it, until the room is needed. Slots with the same beginning
share its cells. Numbers only: cell numbers here are ours, not llama.cpp's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence as Seq

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]


class CellTable:
    """Slots and the cells they have. The caller does to llama.cpp what it does here."""

    def __init__(self, num_cells: int, num_slots: int) -> None:
        self.num_cells = num_cells
        self.num_used = 0  # cells of slots in use
        self._free = np.arange(num_cells, dtype=np.int32)  # the first `_num_free`
        self._num_free = num_cells
        self._num_slots_of = np.zeros(num_cells, np.int32)
        self._num_users_of = np.zeros(num_cells, np.int32)  # of these slots, those in use
        self._cells: list[NDArray[np.int32]] = [np.empty(0, np.int32) for _ in range(num_slots)]
        self._tokens: list[Tokens] = [np.empty(0, np.int32) for _ in range(num_slots)]
        self._salts: list[int | None] = [None] * num_slots
        self._idle = OrderedDict.fromkeys(range(num_slots))  # longest idle first
        self._in_use: set[int] = set()

    def longest_prefix(self, tokens: Tokens, salt: int | None) -> tuple[int, int]:
        """The slot that begins most like `tokens` and by how many of them it does; never all.

        With a length of 0 the slot has no meaning.
        """
        best, best_length = 0, 0
        for slot, known in enumerate(self._tokens):
            length = min(known.size, tokens.size - 1)
            if length <= best_length or self._salts[slot] != salt:
                continue
            differing = np.flatnonzero(known[:length] != tokens[:length])
            length = int(differing[0]) if differing.size else length
            if length > best_length:
                best, best_length = slot, length
        return best, best_length

    def num_needed(self, num_tokens: int, source: int, num_shared: int) -> int:
        """Cells that become used when a slot is opened for `num_tokens` tokens of which the first
        `num_shared` are those of `source`."""
        users = self._num_users_of[self._cells[source][:num_shared]]
        return num_tokens - num_shared + int(np.count_nonzero(users == 0))

    def idle_slots(self) -> list[int]:
        """Slots that can be opened or emptied, longest idle first."""
        return list(self._idle)

    def open(self, slot: int, salt: int | None, source: int, num_shared: int) -> None:
        """Takes an idle slot into use, with the first cells of `source` (which may be itself)."""
        cells = self._cells[source][:num_shared].copy()
        tokens = self._tokens[source][:num_shared].copy()
        self._num_slots_of[cells] += 1
        self.empty(slot)
        del self._idle[slot]
        self._in_use.add(slot)
        self._cells[slot], self._tokens[slot], self._salts[slot] = cells, tokens, salt
        self.num_used += int(np.count_nonzero(self._num_users_of[cells] == 0))
        self._num_users_of[cells] += 1

    def num_missing(self, slot: int, num_tokens: int) -> int:
        """Cells that a slot must still take to have `num_tokens`."""
        return max(0, num_tokens - int(self._cells[slot].size))

    @property
    def num_free(self) -> int:
        """Cells that no slot has."""
        return self._num_free

    def take(self, slot: int, num_cells: int) -> None:
        """Gives free cells to a slot in use."""
        assert num_cells <= self._num_free, "more cells than there are"
        self._num_free -= num_cells
        cells = self._free[self._num_free : self._num_free + num_cells].copy()
        self._num_slots_of[cells] = 1
        self._num_users_of[cells] = 1
        self.num_used += num_cells
        self._cells[slot] = np.concatenate((self._cells[slot], cells))

    def fill(self, slot: int, token_ids: Seq[int]) -> None:
        """Notes the next tokens whose keys and values a slot in use has."""
        self._tokens[slot] = np.concatenate((self._tokens[slot], np.array(token_ids, np.int32)))

    def num_filled(self, slot: int) -> int:
        """Tokens whose keys and values a slot has."""
        return int(self._tokens[slot].size)

    def release(self, slot: int) -> None:
        """Makes a slot idle, with the cells of the tokens that it has."""
        self._in_use.remove(slot)
        self._idle[slot] = None
        cells = self._cells[slot]
        self._num_users_of[cells] -= 1
        self.num_used -= int(np.count_nonzero(self._num_users_of[cells] == 0))
        num_filled = self._tokens[slot].size
        self._give_back(cells[num_filled:])
        self._cells[slot] = cells[:num_filled]

    def empty(self, slot: int) -> None:
        """Gives back the cells of an idle slot."""
        assert slot in self._idle, "the slot is in use"
        self._give_back(self._cells[slot])
        self._cells[slot] = self._tokens[slot] = np.empty(0, np.int32)
        self._idle.move_to_end(slot, last=False)  # the first to be opened

    def _give_back(self, cells: NDArray[np.int32]) -> None:
        self._num_slots_of[cells] -= 1
        freed = cells[self._num_slots_of[cells] == 0]
        self._free[self._num_free : self._num_free + freed.size] = freed
        self._num_free += freed.size
