"""The engine's figures under the names of TensorRT-LLM's own Triton metrics."""

from __future__ import annotations

from triton_models.batching.batcher import BatcherStats

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


def gauge_values(stats: BatcherStats) -> dict[tuple[str, str], float]:
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
        (KV_BLOCKS, "fraction"): stats.used_blocks / stats.max_blocks,
    }
