"""A model that computes from what its KV blocks hold, so that any mix-up of blocks shows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from triton_models.batching.backend import nothing
from triton_models.batching.batcher import Batcher, BatcherLimits
from triton_models.cpu.model import Span
from triton_models.cpu.paged import PagedBackend
from triton_models.request import EngineRequest, TokenEvent

VOCAB_SIZE = 97
BLOCK_SIZE = 4


class FakeModel:
    """The "keys and values" of a token are the token; the next token is a function of all of them,
    read through the block table."""

    block_size = BLOCK_SIZE
    vocab_size = VOCAB_SIZE

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.gate = threading.Event()
        self.gate.set()
        self._first_gated_step = 0
        self.fail_on: int | None = None  # a token that no step survives
        self.num_tokens_of_steps: list[int] = []
        self.num_rows_of_steps: list[int] = []
        self._kv = np.full((num_blocks, BLOCK_SIZE), -1)

    def hold_at_step(self, number: int) -> None:
        """Steps from that one on wait until the gate is set."""
        self._first_gated_step = number
        self.gate.clear()

    def forward(
        self, spans: Seq[Span], while_computing: Callable[[], None] = nothing
    ) -> NDArray[np.float32]:
        """See Model."""
        while_computing()
        if len(self.num_tokens_of_steps) >= self._first_gated_step:
            self.gate.wait()
        self.num_tokens_of_steps.append(sum(len(span.token_ids) for span in spans))
        for span in spans:
            assert len(span.block_ids) == -(-(span.start + len(span.token_ids)) // BLOCK_SIZE)
            for offset, token_id in enumerate(span.token_ids, span.start):
                assert token_id != self.fail_on, "the step failed"
                self._kv[span.block_ids[offset // BLOCK_SIZE], offset % BLOCK_SIZE] = token_id
        rows = [logits_of(history) for span in spans for history in self._histories(span)]
        self.num_rows_of_steps.append(len(rows))
        return np.array(rows, np.float32).reshape(-1, VOCAB_SIZE)

    def _histories(self, span: Span) -> list[list[int]]:
        kv: list[int] = self._kv[list(span.block_ids)].reshape(-1).tolist()
        end = span.start + len(span.token_ids)
        assert span.num_rows <= len(span.token_ids)
        return [kv[: length + 1] for length in range(end - span.num_rows, end)]


def logits_of(history: Seq[int]) -> NDArray[np.float32]:
    """Logits [vocab] after `history`: pseudo-random, the same for the same tokens."""
    seed = reduce(lambda state, token_id: (state * 31 + token_id + 7) % 2**32, history, 1)
    return np.random.default_rng(seed).standard_normal(VOCAB_SIZE, np.float32) * 3


def greedy_continuation(prompt: Seq[int], num_tokens: int) -> list[int]:
    """What a correct engine generates."""
    history = list(prompt)
    for _ in range(num_tokens):
        history.append(int(logits_of(history).argmax()))
    return history[len(prompt) :]


@dataclass
class Recorder:
    """Collects a request's events."""

    events: list[TokenEvent] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def __call__(self, event: TokenEvent) -> None:
        assert not self.done.is_set(), "an event after the final one"
        self.events.append(event)
        if event.is_final:
            self.done.set()

    def wait(self) -> Recorder:
        assert self.done.wait(30), "no final event"
        return self

    def token_ids(self, sequence_index: int = 0) -> list[int]:
        return [
            event.token_id
            for event in self.events
            if event.sequence_index == sequence_index and event.token_id is not None
        ]

    @property
    def last(self) -> TokenEvent:
        return self.events[-1]


def make_batcher(model: FakeModel, **limits: int) -> Batcher:
    """A batcher with small limits over the fake model."""
    values = {
        "max_seq_len": 64,
        "max_input_len": 63,
        "max_num_sequences": 4,
        "max_num_tokens": 12,
        "max_queue_size": 100,
    }
    return Batcher(PagedBackend(model), BatcherLimits(**(values | limits)))


def submit(batcher: Batcher, prompt: Seq[int], max_new_tokens: int = 8, **kw: object) -> Recorder:
    """Submits a greedy request, unless `kw` says otherwise."""
    recorder = Recorder()
    request = EngineRequest(
        prompt_token_ids=list(prompt),
        max_new_tokens=max_new_tokens,
        on_event=recorder,
        **kw,  # type: ignore[arg-type]
    )
    batcher.submit(request)
    return recorder
