"""Figures -> table, JSON, and the picture's file."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil
from rich.table import Table

from frontend.bench.goals import Goal, Summary
from frontend.bench.runner import PrefixResult
from frontend.bench.stats import Figures, Latency, Run, figures

COLUMNS = ("streams", "tok/s", "TTFT p50", "p95", "p99", "ITL p50", "p95", "p99")
MIN_WIDTH = 110  # of the tables; a pipe has 80 columns, which is too little


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def results_table(summary: Summary) -> Table:
    """One line for each engine and number of streams."""
    table = Table("engine", title="Medians over the repeats; times in ms")
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for engine, by_streams in summary.items():
        for num_streams, one in sorted(by_streams.items()):
            rate = f"{one.tokens_per_s:.0f}" if one.num_tokens else "failed"
            times = (*_milliseconds(one.ttft_s), *_milliseconds(one.itl_s))
            table.add_row(engine, str(num_streams), rate, *times)
        table.add_section()
    return table


def cpu_table(summary: Summary) -> Table:
    """CPU time of each process for one token; the load client's is no part of the engine's."""
    roles = list(
        dict.fromkeys(
            role
            for by_streams in summary.values()
            for one in by_streams.values()
            for role in one.cpu_s
        )
    )
    table = Table("engine", title="CPU in ms per token")
    for name in ("streams", *roles):
        table.add_column(name, justify="right")
    for engine, by_streams in summary.items():
        for num_streams, one in sorted(by_streams.items()):
            used = (_per_token_ms(one, role) for role in roles)
            table.add_row(engine, str(num_streams), *used)
        table.add_section()
    return table


def goals_table(goals: Iterable[Goal]) -> Table:
    table = Table("goal", "wanted", "measured", "")
    for goal in goals:
        sign = "<=" if goal.is_upper_limit else ">="
        measured = "not measured" if goal.value is None else f"{goal.value:.3f} {goal.unit}".strip()
        verdict = {True: "[green]pass", False: "[bold red]fail", None: "[dim]-"}[goal.is_met]
        table.add_row(goal.name, f"{sign} {goal.limit:g} {goal.unit}".strip(), measured, verdict)
    return table


def warnings(runs: Iterable[Run], *, idle_share: float) -> list[str]:
    """What makes the figures doubtful: failed streams, and engines that worked out of turn."""
    found: dict[str, None] = {}
    for run in runs:
        for error in figures(run).errors:
            found[f"{run.engine} at {run.num_streams} streams: {error}"] = None
        for other, seconds in run.idle_cpu_s.items():
            if seconds > idle_share * run.duration_s:
                share = seconds / run.duration_s
                found[f"{other} used {share:.0%} of a core while {run.engine} was measured"] = None
    return list(found)


def write_json(
    path: Path,
    *,
    settings: Mapping[str, Any],
    runs: Sequence[Run],
    summary: Summary,
    goals: Sequence[Goal],
    prefix: PrefixResult | None,
) -> None:
    """All that was measured; times in seconds."""
    content = {
        "machine": machine(),
        "settings": settings,
        "summary": {
            engine: {str(n): describe(one) for n, one in by_streams.items()}
            for engine, by_streams in summary.items()
        },
        "goals": [described(goal) for goal in goals],
        "prefix_cache": prefix and {**msgspec.to_builtins(prefix), "speedup": prefix.speedup},
        "runs": [
            {
                "engine": run.engine,
                "num_streams": run.num_streams,
                "repeat": run.repeat,
                "duration_s": run.duration_s,
                "idle_cpu_s": run.idle_cpu_s,
                **describe(figures(run)),
            }
            for run in runs
        ],
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")


def described(goal: Goal) -> dict[str, Any]:
    return {**msgspec.to_builtins(goal), "is_met": goal.is_met}


def describe(one: Figures) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(one)
    num_tokens = one.num_tokens or 1
    per_token = {name: seconds / num_tokens for name, seconds in one.cpu_s.items()}
    return {**plain, "cpu_s_per_token": per_token if one.num_tokens else {}}


def _milliseconds(one: Latency) -> list[str]:
    return [f"{value * 1000:.1f}" for value in (one.p50, one.p95, one.p99)]


def _per_token_ms(one: Figures, role: str) -> str:
    if role not in one.cpu_s or not one.num_tokens:
        return ""
    return f"{one.cpu_s[role] / one.num_tokens * 1000:.2f}"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
