"""The LLM API's figures as ours. Pure: knows the shapes of the API's statistics.

Sources: RequestPerfMetrics as read by triton_backend/all_models/.../tensorrt_llm/1/model.py, and
the iteration statistics in docs/source/commands/trtllm-serve of TensorRT-LLM 1.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from triton_models.request import SequenceStats


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmStats:
    """A snapshot for the gauges; see triton_models.metrics.Figures."""

    num_active: int
    num_scheduled: int
    num_waiting: int
    max_num_sequences: int
    max_blocks: int
    free_blocks: int
    used_blocks: int
    tokens_per_block: int
    reused_blocks: int

    @classmethod
    def of(cls, figures: Mapping[str, Any], num_active: int, max_num_sequences: int) -> Self:
        """`figures` is one dict of `LLM.get_stats_async`, empty before the first.

        It stays what it was when nothing runs any more, so what runs is at most `num_active`.
        """
        kv_cache = figures.get("kvCacheStats") or {}
        batching = figures.get("inflightBatchingStats") or {}
        num_scheduled = min(int(batching.get("numScheduledRequests", 0)), num_active)
        used_blocks = int(kv_cache.get("usedNumBlocks", 0)) if num_active else 0
        max_blocks = int(kv_cache.get("maxNumBlocks", 0))
        return cls(
            num_active=num_active,
            num_scheduled=num_scheduled,
            num_waiting=max(num_active - max_num_sequences, 0),
            max_num_sequences=max_num_sequences,
            max_blocks=max_blocks,
            free_blocks=max_blocks - used_blocks,
            used_blocks=used_blocks,
            tokens_per_block=int(kv_cache.get("tokensPerBlock", 0)),
            reused_blocks=int(kv_cache.get("reusedBlocks", 0)),
        )


def request_stats(output: Any, completion: Any) -> SequenceStats:
    """Of a RequestOutput and one of its CompletionOutputs.

    The times are 0 unless the request asked for performance metrics and has ended.
    """
    metrics = getattr(completion, "request_perf_metrics", None)
    times = metrics.timing_metrics if metrics else None
    blocks = metrics.kv_cache_metrics if metrics else None
    drafts = getattr(metrics, "speculative_decoding", None)
    return SequenceStats(
        num_cached_tokens=getattr(output, "cached_tokens", 0),  # not of every version
        num_reused_blocks=blocks.num_reused_blocks if blocks else 0,
        num_new_blocks=blocks.num_new_allocated_blocks if blocks else 0,
        arrival_time_ns=_ns(times.arrival_time) if times else 0,
        first_scheduled_time_ns=_ns(times.first_scheduled_time) if times else 0,
        first_token_time_ns=_ns(times.first_token_time) if times else 0,
        last_token_time_ns=_ns(times.last_token_time) if times else 0,
        num_draft_tokens=drafts.total_draft_tokens if drafts else 0,
        num_accepted_draft_tokens=drafts.total_accepted_draft_tokens if drafts else 0,
    )


def _ns(time: timedelta) -> int:
    """Of the executor's monotonic clock."""
    return time // timedelta(microseconds=1) * 1000
