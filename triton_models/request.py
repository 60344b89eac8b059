"""What goes into the batcher (EngineRequest) and what comes out of it (TokenEvent).

Token ids only; knows nothing about Triton, text or the engine's insides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from triton_models.contract import FinishReason

NO_END_ID = -1


class Guide(Protocol):
    """The state of a grammar along one sequence."""

    def fork(self) -> Guide:
        """A second guide in the same state, for another sequence of the request."""
        ...

    def allowed(self) -> NDArray[np.bool_]:
        """Which tokens may come next, [vocab]; none when the text is complete or can only end."""
        ...

    def may_end(self) -> bool:
        """Whether the text so far is complete."""
        ...

    def accept(self, token_id: int) -> None:
        """Takes one token that was allowed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How tokens are chosen. The defaults are TensorRT-LLM's: without top_k and top_p, greedy."""

    temperature: float = 1.0
    top_k: int = 0  # 0: all
    top_p: float = 0.0  # 0: all
    min_p: float = 0.0
    repetition_penalty: float = 1.0  # over prompt and output
    presence_penalty: float = 0.0  # over the output
    frequency_penalty: float = 0.0  # over the output
    min_tokens: int = 0
    seed: int = 0
    bias_token_ids: NDArray[np.int64] | None = None  # [n], beside bias_values float32 [n]
    bias_values: NDArray[np.float32] | None = None
    bad_words: tuple[tuple[int, ...], ...] = ()
    return_log_probs: bool = False
    num_top_log_probs: int = 0

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        if self.temperature <= 0 or self.top_k == 1:
            return True
        return self.top_k <= 0 and self.top_p <= 0 and self.min_p <= 0

    @property
    def has_penalties(self) -> bool:
        """Whether earlier tokens change the logits."""
        return bool(self.repetition_penalty != 1 or self.presence_penalty or self.frequency_penalty)


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceStats:
    """Figures of one sequence so far; the times are time.monotonic_ns()."""

    num_cached_tokens: int
    num_reused_blocks: int
    num_new_blocks: int
    arrival_time_ns: int
    first_scheduled_time_ns: int
    first_token_time_ns: int
    last_token_time_ns: int
    num_draft_tokens: int = 0  # of speculative decoding
    num_accepted_draft_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptLogProbs:
    """The log-probs of a prompt of n tokens, with k alternatives each."""

    log_probs: NDArray[np.float32]  # [n]; the first is 0, as nothing predicts it
    top_ids: NDArray[np.int32]  # [n - 1, k], for the tokens from the second on, likeliest first
    top_log_probs: NDArray[np.float32]  # [n - 1, k]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEvent:
    """What one step brought for one sequence: a token, its end, or both."""

    sequence_index: int
    token_id: int | None = None  # None: it ended without a new token (end_id, cancelled)
    log_prob: float = 0.0  # of token_id, from the raw logits
    cum_log_prob: float = 0.0
    top_ids: NDArray[np.int32] | None = None  # [k], likeliest first
    top_log_probs: NDArray[np.float32] | None = None  # [k]
    finish_reason: FinishReason = FinishReason.NONE
    is_final: bool = False  # the last event of the whole request
    stats: SequenceStats | None = None  # with the first and the last event of a sequence
    prompt_log_probs: PromptLogProbs | None = None  # with the first event of sequence 0
    error: str | None = None  # the request failed; is_final is set


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """One prompt and what to do with it. Validated by who makes it, except for what only the engine
    knows (lengths, queue).

    `on_event` runs in the engine's step thread: it must be quick and must not raise.
    """

    prompt_token_ids: list[int]
    max_new_tokens: int  # 0: the prompt is computed and no token sampled
    on_event: Callable[[TokenEvent], None]
    end_id: int = NO_END_ID
    stop_words: tuple[tuple[int, ...], ...] = ()
    num_sequences: int = 1
    sampling: SamplingParams = field(default_factory=SamplingParams)
    guide: Guide | None = None
    returns_prompt_log_probs: bool = False  # with sampling.num_top_log_probs alternatives
    cache_salt: int | None = None  # requests share cached blocks with those of the same salt only
    priority: int = 0  # lower is sooner
    guide_text: tuple[str, str] | None = None  # type and text, for an engine that compiles them
    lora_task_id: int | None = None
    returns_perf_metrics: bool = False
