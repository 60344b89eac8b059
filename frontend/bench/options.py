"""What a benchmark was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

STACK, BARE, LLAMA = "stack", "bare", "llama"
BEFORE = "before"  # the stack of another checkout
ENGINES = (STACK, BARE, LLAMA)


class BenchError(RuntimeError):
    """The benchmark cannot go on; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line asks for, checked."""

    engines: list[str]
    streams: list[int]
    url: str | None
    before: Path | None
    prompt_tokens: int
    max_tokens: int
    repeats: int
    workers: int
    shared_prefix: bool
    json_path: Path | None
    plot_path: Path | None
