"""What a verification tells: lines for the build's log, and its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TextIO

import msgspec

from build_engines.artefacts.artefact import VerificationResult
from build_engines.verify.record import Record

FIRST_RECORD = "none: the first of its model to be verified here"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Of a model that was not refused."""

    result: VerificationResult
    record: Record


@dataclass(frozen=True, slots=True)
class Report:
    """A line with JSON for each thing that was found out."""

    log: TextIO

    def write(self, about: str, value: object) -> None:
        self.log.write(f"verify: {about}: {msgspec.json.encode(value).decode()}\n")
        self.log.flush()
