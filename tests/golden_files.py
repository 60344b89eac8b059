"""Answers that are kept in tests/golden; its README says how they are changed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"

# What differs from run to run, and what stands for it.
_CHANGING = (
    (re.compile(r'"id":"(chatcmpl|cmpl|resp|msg|item)[-_][0-9a-f]{32}"'), r'"id":"\1-ID"'),
    (re.compile(r'"id":"call_[0-9A-Za-z]{24}"'), '"id":"call_ID"'),
    (re.compile(r'"(created|created_at)":\d+'), r'"\1":0'),
    (re.compile(r'"system_fingerprint":"fp_[0-9a-f]{10}"'), '"system_fingerprint":"fp_ID"'),
)


@dataclass(frozen=True)
class Golden:
    """Compares what was sent with the file of its name; with `is_update` writes it instead."""

    is_update: bool

    def check(self, name: str, sent: bytes) -> None:
        text = normalized(sent.decode())
        path = FOLDER / name
        if self.is_update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path.name} is missing: tests/golden/README.md"
        assert text == path.read_text(encoding="utf-8")


def normalized(text: str) -> str:
    for pattern, stand_in in _CHANGING:
        text = pattern.sub(stand_in, text)
    return text
