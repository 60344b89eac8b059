"""What the batcher needs of an engine: a model, and the memory of its keys and values.

How that memory is cut up (pages, cells) and what of it can be used again is the engine's own.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from triton_models.batching.sequence import Sequence


def nothing() -> None:
    """For those who have nothing to do while a model computes."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens [start, end) of a sequence, to be computed in one step."""

    sequence: Sequence
    start: int
    end: int
    num_prompt_rows: int = 0  # of logits for the prompt's own log-probs; not the sampled one

    @property
    def is_sampled(self) -> bool:
        """Whether the chunk reaches the last token, so that its logits give the next one."""
        return self.end == len(self.sequence.token_ids)

    @property
    def num_rows(self) -> int:
        """Rows of logits wanted, of its last tokens."""
        return self.num_prompt_rows + self.is_sampled


class Backend(Protocol):
    """Only the step thread calls it; any thread may ask for `num_free_blocks`.

    Memory is counted in blocks of `block_size` tokens. A sequence has as many as its tokens need
    from `admit` until `free`.
    """

    vocab_size: int
    block_size: int  # tokens
    num_blocks: int

    @property
    def num_free_blocks(self) -> int:
        """Blocks that no sequence has; what they hold may still be found by `admit`."""
        ...

    def admit(self, sequence: Sequence, *, num_running: int) -> bool:
        """Gives a sequence room for all its tokens and sets its `num_computed` to how many of them
        are there already (never all: a step needs one to compute logits from).

        False, and nothing has changed, when there is too little room beside `num_running` others;
        a sequence alone always gets in.
        """
        ...

    def grow(self, sequence: Sequence) -> bool:
        """Gives an admitted sequence room for the tokens it has got since; False: there is none."""
        ...

    def commit(self, sequence: Sequence) -> None:
        """Hears that the sequence's first `num_computed` tokens are computed."""
        ...

    def free(self, sequence: Sequence) -> None:
        """Takes the sequence's room back; one that has none is left alone."""
        ...

    def forward(
        self, chunks: Seq[Chunk], while_computing: Callable[[], None] = nothing
    ) -> NDArray[np.float32]:
        """Logits [rows, vocab], the rows that the chunks want, in their order.

        Valid until the next call. Releases the GIL while it computes. `while_computing` is called
        once, where it holds the computing up the least.
        """
        ...

    def close(self) -> None:
        """Gives up the model and its memory; nothing is called afterwards."""
        ...
