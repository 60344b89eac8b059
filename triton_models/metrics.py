"""The engine's figures under the names of TensorRT-LLM's own Triton metrics."""

from __future__ import annotations

from typing import Protocol

REQUESTS = "nv_trt_llm_request_metrics"
KV_BLOCKS = "nv_trt_llm_kv_cache_block_metrics"

# family -> description, label, values of the label
GAUGES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    REQUESTS: (
        "TRT LLM request metrics",
        "request_type",
        ("active", "max", "scheduled", "waiting"),
    ),
    KV_BLOCKS: (
        "TRT LLM KV cache block metrics",
        "kv_cache_block_type",
        ("max", "free", "used", "tokens_per", "reused", "fraction"),
    ),
}


class Figures(Protocol):
    """A snapshot of an engine; sequences are counted, not requests."""

    @property
    def num_active(self) -> int: ...
    @property
    def num_scheduled(self) -> int: ...
    @property
    def num_waiting(self) -> int: ...
    @property
    def max_num_sequences(self) -> int: ...
    @property
    def max_blocks(self) -> int: ...
    @property
    def free_blocks(self) -> int: ...
    @property
    def used_blocks(self) -> int: ...
    @property
    def tokens_per_block(self) -> int: ...
    @property
    def reused_blocks(self) -> int: ...


class Measured(Protocol):
    """An engine that can be asked for its figures, from any thread."""

    def stats(self) -> Figures: ...


def gauge_values(stats: Figures) -> dict[tuple[str, str], float]:
    """(family, value of its label) -> value, for every one in GAUGES."""
    return {
        (REQUESTS, "active"): stats.num_active,
        (REQUESTS, "max"): stats.max_num_sequences,
        (REQUESTS, "scheduled"): stats.num_scheduled,
        (REQUESTS, "waiting"): stats.num_waiting,
        (KV_BLOCKS, "max"): stats.max_blocks,
        (KV_BLOCKS, "free"): stats.free_blocks,
        (KV_BLOCKS, "used"): stats.used_blocks,
        (KV_BLOCKS, "tokens_per"): stats.tokens_per_block,
        (KV_BLOCKS, "reused"): stats.reused_blocks,
        (KV_BLOCKS, "fraction"): stats.used_blocks / max(stats.max_blocks, 1),
    }
