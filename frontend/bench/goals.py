"""What the stack is held to, and whether the figures reach it. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from frontend.bench.options import BARE, BEFORE, LLAMA, STACK
from frontend.bench.stats import Figures

Summary = Mapping[str, Mapping[int, Figures]]  # engine -> number of streams

NOISE = 0.03  # what two runs of the same code differ by


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A figure and its limit; `value` is None where what it needs was not measured."""

    name: str
    limit: float
    value: float | None
    unit: str = ""
    is_upper_limit: bool = False

    @property
    def is_met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value <= self.limit if self.is_upper_limit else self.value >= self.limit


def evaluate(summary: Summary, prefix_speedup: float | None) -> list[Goal]:
    """The project's goals; those of a change where the stack before it was measured, too."""
    return [
        *(_unchanged_rate(summary, num_streams) for num_streams in summary.get(BEFORE, ())),
        Goal(
            name="stack at 32 streams / bare batcher at 32",
            limit=0.85,
            value=_rate_ratio(summary, (STACK, 32), (BARE, 32)),
        ),
        Goal(
            name="stack at 32 streams / llama.cpp server at 32",
            limit=3.0,
            value=_rate_ratio(summary, (STACK, 32), (LLAMA, 32)),
        ),
        Goal(
            name="stack at 32 streams / stack at 1",
            limit=8.0,
            value=_rate_ratio(summary, (STACK, 32), (STACK, 1)),
        ),
        Goal(
            name="stack at 1 stream / llama.cpp server at 1",
            limit=1.0,
            value=_rate_ratio(summary, (STACK, 1), (LLAMA, 1)),
        ),
        Goal(
            name="time to first token at 1 stream, stack - bare batcher",
            limit=10.0,
            value=_ttft_difference_ms(summary),
            unit="ms",
            is_upper_limit=True,
        ),
        Goal(
            name="prefix cache: first / repeated 400-token prompt, time to first token",
            limit=5.0,
            value=prefix_speedup,
        ),
    ]


def check_goal(cost_us: float) -> Goal:
    """Of what keys, limits and their headers cost a request (`inflight bench --check`)."""
    return Goal(
        name="keys and limits on LMDB, 8 buckets: CPU of a request",
        limit=60.0,
        value=cost_us,
        unit="µs",
        is_upper_limit=True,
    )


def _unchanged_rate(summary: Summary, num_streams: int) -> Goal:
    return Goal(
        name=f"stack / stack before at {num_streams} streams",
        limit=1 - NOISE,
        value=_rate_ratio(summary, (STACK, num_streams), (BEFORE, num_streams)),
    )


def _find(summary: Summary, engine: str, num_streams: int) -> Figures | None:
    found = summary.get(engine, {}).get(num_streams)
    return found if found is not None and found.num_tokens else None


def _rate_ratio(summary: Summary, ours: tuple[str, int], other: tuple[str, int]) -> float | None:
    a, b = _find(summary, *ours), _find(summary, *other)
    return a.tokens_per_s / b.tokens_per_s if a and b else None


def _ttft_difference_ms(summary: Summary) -> float | None:
    stack, bare = _find(summary, STACK, 1), _find(summary, BARE, 1)
    return (stack.ttft_s.p50 - bare.ttft_s.p50) * 1000 if stack and bare else None
