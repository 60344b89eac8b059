"""The frontend's own Prometheus families, merged over all worker processes.

The buckets are those that vLLM and SGLang use, so that dashboards can compare.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

TTFT_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0),
    *(7.5, 10.0),
)
TPOT_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
INFERENCE_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0)


class Metrics:
    """Counts what this worker does; `exposition` sums over all workers.

    Several workers share files in the folder PROMETHEUS_MULTIPROC_DIR, which prometheus-client
    reads when it is imported; without it this process counts for itself.
    """

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.active_connections = Gauge(
            "active_connections",
            "Client connections with a request in work.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.inference_seconds = Histogram(
            "model_inference_seconds",
            "Time from a request's admission to the end of its answer.",
            ("model",),
            buckets=INFERENCE_BUCKETS,
            registry=registry,
        )
        self.first_token_seconds = Histogram(
            "inflight_time_to_first_token_seconds",
            "Time from a request's admission to its first token.",
            ("model",),
            buckets=TTFT_BUCKETS,
            registry=registry,
        )
        self.output_token_seconds = Histogram(
            "inflight_time_per_output_token_seconds",
            "Mean time between the tokens of a request after its first.",
            ("model",),
            buckets=TPOT_BUCKETS,
            registry=registry,
        )
        self.prompt_tokens = Counter(
            "inflight_prompt_tokens", "Prompt tokens.", ("model",), registry=registry
        )
        self.completion_tokens = Counter(
            "inflight_completion_tokens", "Generated tokens.", ("model",), registry=registry
        )
        self.requests = Counter(
            "inflight_requests",
            "Generation requests by how they ended.",
            ("model", "outcome"),
            registry=registry,
        )
        self._registry = registry

    def count(
        self,
        model: str,
        outcome: str,
        *,
        num_prompt_tokens: int,
        num_tokens: int,
        duration_s: float,
        first_token_s: float | None,
    ) -> None:
        """A generation has ended.

        Args:
            outcome: a finish reason, an error's code, or "cancelled".
            num_tokens: generated.
            duration_s, first_token_s: from its admission; None: it had none.
        """
        self.requests.labels(model, outcome).inc()
        self.prompt_tokens.labels(model).inc(num_prompt_tokens)
        self.completion_tokens.labels(model).inc(num_tokens)
        self.inference_seconds.labels(model).observe(duration_s)
        if first_token_s is not None:
            self.first_token_seconds.labels(model).observe(first_token_s)
            if num_tokens > 1:
                mean = (duration_s - first_token_s) / (num_tokens - 1)
                self.output_token_seconds.labels(model).observe(mean)

    @contextmanager
    def connection(self) -> Iterator[None]:
        """A client connection has a request in work."""
        self.active_connections.inc()
        try:
            yield
        finally:
            self.active_connections.dec()

    def exposition(self) -> bytes:
        """All families in Prometheus' text format."""
        return generate_latest(self._merged())

    def num_active_connections(self) -> int:
        """Over all workers."""
        value = self._merged().get_sample_value("active_connections")
        return int(value or 0)

    def _merged(self) -> CollectorRegistry:
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return self._registry
        merged = CollectorRegistry()
        MultiProcessCollector(merged)  # type: ignore[no-untyped-call]
        return merged
