"""The response side of the tensor contract: events of one request become output tensors.

Log-probs are a growing list, tokens and top log-probs are deltas, as the contract says.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triton_models.contract import FinishReason
from triton_models.request import SequenceStats, TokenEvent
from triton_models.wire import WireRequest

Outputs = dict[str, NDArray[Any]]


@dataclass(slots=True)
class _SequenceOutput:
    num_responses: int = 0
    num_tokens: int = 0
    log_probs: list[float] = field(default_factory=list)


class ResponseEncoder:
    """Keeps what earlier responses of the request have told. Not thread-safe."""

    def __init__(self, request: WireRequest) -> None:
        self._request = request
        self._sequences = [_SequenceOutput() for _ in range(request.num_sequences)]

    def encode(self, events: Seq[TokenEvent]) -> Outputs:
        """The tensors of one response; `events` are consecutive and of one sequence."""
        request = self._request
        last = events[-1]
        output = self._sequences[last.sequence_index]
        tokens = [event for event in events if event.token_id is not None]
        output.num_tokens += len(tokens)
        token_ids = [event.token_id for event in tokens]
        if not (request.streaming or request.exclude_input_in_output):
            token_ids = [*request.prompt_token_ids, *token_ids]
        tensors: Outputs = {
            "output_ids": np.array([[token_ids]], np.int32),
            "sequence_length": _int32(len(token_ids)),
        }
        if request.num_sequences > 1:
            tensors["sequence_index"] = _int32(last.sequence_index)
        if request.sampling.return_log_probs:
            output.log_probs += [event.log_prob for event in tokens]
            tensors["output_log_probs"] = np.array([[output.log_probs]], np.float32)
            tensors["cum_log_probs"] = np.array([[last.cum_log_prob]], np.float32)
        if request.sampling.num_top_log_probs:
            tensors |= self._top_log_probs(tokens)
        if request.return_num_input_tokens:
            tensors["num_input_tokens"] = _int32(len(request.prompt_token_ids))
        if request.return_num_output_tokens:
            tensors["num_output_tokens"] = _int32(output.num_tokens)
        output.num_responses += 1
        if output.num_responses == 1:
            tensors |= _about_prompt(events[0])
        if last.finish_reason is not FinishReason.NONE:
            tensors["finish_reason"] = _int32(last.finish_reason)
            if request.return_perf_metrics and last.stats is not None:
                tensors |= _perf_metrics(last.stats)
        return tensors

    def _top_log_probs(self, tokens: Seq[TokenEvent]) -> Outputs:
        shape = (1, len(tokens), self._request.sampling.num_top_log_probs)
        ids = np.zeros(shape, np.int32)
        log_probs = np.zeros(shape, np.float32)
        for row, event in enumerate(tokens):
            ids[0, row] = event.top_ids
            log_probs[0, row] = event.top_log_probs
        return {"top_log_prob_ids": ids, "top_log_probs": log_probs}


def _about_prompt(first: TokenEvent) -> Outputs:
    """What a sequence's first event tells besides its token."""
    tensors: Outputs = {}
    if first.stats is not None:
        tensors["num_cached_tokens"] = _int32(first.stats.num_cached_tokens)
    prompt = first.prompt_log_probs
    if prompt is not None:
        tensors["prompt_log_probs"] = prompt.log_probs[np.newaxis]
        if prompt.top_ids.shape[1]:
            tensors["prompt_top_log_prob_ids"] = prompt.top_ids[np.newaxis]
            tensors["prompt_top_log_probs"] = prompt.top_log_probs[np.newaxis]
    return tensors


def _perf_metrics(stats: SequenceStats) -> Outputs:
    return {
        "kv_cache_alloc_new_blocks": _int32(stats.num_new_blocks),
        "kv_cache_reused_blocks": _int32(stats.num_reused_blocks),
        "kv_cache_alloc_total_blocks": _int32(stats.num_new_blocks + stats.num_reused_blocks),
        "arrival_time_ns": _int64(stats.arrival_time_ns),
        "first_scheduled_time_ns": _int64(stats.first_scheduled_time_ns),
        "first_token_time_ns": _int64(stats.first_token_time_ns),
        "last_token_time_ns": _int64(stats.last_token_time_ns),
        "acceptance_rate": np.array(
            [[stats.num_accepted_draft_tokens / max(stats.num_draft_tokens, 1)]], np.float32
        ),
        "total_accepted_draft_tokens": _int32(stats.num_accepted_draft_tokens),
        "total_draft_tokens": _int32(stats.num_draft_tokens),
    }


def _int32(value: int) -> NDArray[np.int32]:
    return np.array([[value]], np.int32)


def _int64(value: int) -> NDArray[np.int64]:
    return np.array([[value]], np.int64)
