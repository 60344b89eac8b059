"""One sequence on its way through the engine: state only, changed by scheduler and batcher."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from triton_models.batching.log_probs import PromptLogProbsCollector
from triton_models.request import EngineRequest, Guide, SequenceStats


@dataclass(slots=True, eq=False)
class RequestState:
    """A request and its sequences."""

    handle: int  # rises with the arrival
    request: EngineRequest
    arrival_time_ns: int = field(default_factory=time.monotonic_ns)
    sequences: list[Sequence] = field(default_factory=list)
    num_unfinished: int = 0
    is_forked: bool = False  # the sequences after the first are in the scheduler
    is_queued: bool = True  # counts against the bound of the queue


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens and random state. Preemption drops what is computed and keeps the rest."""

    state: RequestState
    index: int
    token_ids: list[int]  # prompt and output
    num_prompt_tokens: int
    max_num_tokens: int  # prompt and output
    rng: np.random.Generator
    guide: Guide | None
    prompt_log_probs: PromptLogProbsCollector | None = None  # until they are told
    num_computed: int = 0  # tokens whose keys and values the backend has
    token_counts: NDArray[np.int32] | None = None  # [vocab], of the output; only with penalties
    seen: NDArray[np.bool_] | None = None  # [vocab], prompt and output; only with penalties
    cum_log_prob: float = 0.0
    is_finished: bool = False
    num_cached_tokens: int = 0  # at the first admission
    num_reused_blocks: int = 0
    num_new_blocks: int = 0
    first_scheduled_time_ns: int = 0
    first_token_time_ns: int = 0
    last_token_time_ns: int = 0

    @property
    def num_output_tokens(self) -> int:
        """Tokens generated so far."""
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def order(self) -> tuple[int, int, int]:
        """Who comes before whom, in the queue and for blocks: by priority, then by age."""
        return self.state.request.priority, self.state.handle, self.index

    @property
    def num_remaining(self) -> int:
        """Tokens to compute before the next one can be sampled; 1 while decoding."""
        return len(self.token_ids) - self.num_computed

    def stats(self) -> SequenceStats:
        """A snapshot for an event."""
        return SequenceStats(
            num_cached_tokens=self.num_cached_tokens,
            num_reused_blocks=self.num_reused_blocks,
            num_new_blocks=self.num_new_blocks,
            arrival_time_ns=self.state.arrival_time_ns,
            first_scheduled_time_ns=self.first_scheduled_time_ns,
            first_token_time_ns=self.first_token_time_ns,
            last_token_time_ns=self.last_token_time_ns,
        )
