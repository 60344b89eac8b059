"""The batcher's backend on OpenVINO: keys and values in blocks, found again by a prefix cache.

Knows which sequence has which blocks, and what the model is to be told of them.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from triton_models.batching.backend import Chunk, nothing
from triton_models.batching.sequence import Sequence
from triton_models.cpu.blocks import BlockPool
from triton_models.cpu.model import Model, Span
from triton_models.cpu.prefix_cache import PrefixCache, PrefixMatch, root_of


@dataclass(slots=True)
class BlockTable:
    """A sequence's blocks, from its first token on."""

    blocks: list[int]
    num_published: int  # of `blocks`, offered to the prefix cache
    node: int  # of the last published block


class PagedBackend:
    """Implements `Backend` over a model that reads and writes blocks."""

    def __init__(self, model: Model, *, enable_prefix_cache: bool = True) -> None:
        self.vocab_size = model.vocab_size
        self.block_size = model.block_size
        self.num_blocks = model.num_blocks
        self._model = model
        self._pool = BlockPool(model.num_blocks)
        self._cache = PrefixCache(self._pool, model.block_size, enabled=enable_prefix_cache)
        self._tables: dict[Sequence, BlockTable] = {}

    @property
    def num_free_blocks(self) -> int:
        """See Backend."""
        return self._pool.num_available

    def admit(self, sequence: Sequence, *, num_running: int) -> bool:
        """See Backend."""
        found = self._match(sequence)
        num_missing = -(-len(sequence.token_ids) // self.block_size) - len(found.blocks)
        # one spare block for each running sequence: else this one would soon be preempted again
        if num_running and num_missing + num_running > self._pool.num_available:
            for block in reversed(found.blocks):
                self._pool.release(block)
            return False
        num_found = len(found.blocks)
        self._tables[sequence] = BlockTable(found.blocks, num_found, found.node)
        sequence.num_computed = num_found * self.block_size
        has_blocks = self.grow(sequence)
        assert has_blocks, "a sequence alone must fit"
        return True

    def grow(self, sequence: Sequence) -> bool:
        """See Backend."""
        blocks = self._tables[sequence].blocks
        while len(blocks) * self.block_size < len(sequence.token_ids):
            block = self._pool.allocate()
            if block is None:
                return False
            blocks.append(block)
            sequence.num_new_blocks += 1
        return True

    def commit(self, sequence: Sequence) -> None:
        """Offers the blocks that are full to the prefix cache."""
        table = self._tables[sequence]
        size = self.block_size
        while (table.num_published + 1) * size <= sequence.num_computed:
            index = table.num_published
            table.node = self._cache.publish(
                table.node,
                sequence.token_ids[index * size : (index + 1) * size],
                table.blocks[index],
            )
            table.num_published += 1

    def free(self, sequence: Sequence) -> None:
        """See Backend."""
        table = self._tables.pop(sequence, None)
        if table is None:
            return
        # last block first: idle blocks are taken oldest first, and a block is no longer findable
        # without the ones before it
        for block in reversed(table.blocks):
            self._pool.release(block)

    def forward(
        self, chunks: Seq[Chunk], while_computing: Callable[[], None] = nothing
    ) -> NDArray[np.float32]:
        """See Backend."""
        spans = [span for chunk in chunks for span in self._spans(chunk)]
        return self._model.forward(spans, while_computing)

    def close(self) -> None:
        """Nothing to do: OpenVINO's objects go with this one."""

    def _match(self, sequence: Sequence) -> PrefixMatch:
        root = root_of(sequence.state.request.cache_salt)
        if sequence.prompt_log_probs is not None:
            return PrefixMatch([], root)  # the logits behind every token are wanted
        return self._cache.match(
            sequence.token_ids, not_up_to=sequence.num_prompt_tokens - 1, root=root
        )

    def _spans(self, chunk: Chunk) -> list[Span]:
        """A chunk as the model takes it.

        Generated tokens stand alone, as when they were generated: a sequence that was preempted
        then gets back the same keys and values to the last bit.
        """
        sequence = chunk.sequence
        blocks = self._tables[sequence].blocks
        num_prompt_tokens = sequence.num_prompt_tokens
        bounds = list(range(max(chunk.start, num_prompt_tokens), chunk.end + 1))
        if chunk.start < num_prompt_tokens:
            bounds = [chunk.start, min(chunk.end, num_prompt_tokens), *bounds[1:]]
        return [
            Span(
                token_ids=sequence.token_ids[start:end],
                start=start,
                block_ids=blocks[: -(-end // self.block_size)],
                num_rows=chunk.num_rows if end == chunk.end else 0,
            )
            for start, end in pairwise(bounds)
        ]
