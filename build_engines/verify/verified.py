"""What a finished `verify` stage holds: a record to publish, and what the manifest says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from build_engines.artefacts.manifest import VerificationResult

VERIFY = "verify"  # the stage's name
# What is in it is published. Beside it is what changes from run to run, which no file of an
# artefact may.
RECORD_FOLDER = "record"
_RESULT_NAME = "verified.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A model that may be published."""

    result: VerificationResult
    memory_bytes: int | None  # resident, of the engine's process; None where Triton itself runs it

    def write(self, stage_dir: Path) -> None:
        """For `read_verified`."""
        (stage_dir / _RESULT_NAME).write_bytes(msgspec.json.encode(self))


def read_verified(done: Mapping[str, Path]) -> Verified | None:
    """The outcome; None before the stage is done, and of a plan without it."""
    if VERIFY not in done:
        return None
    path = done[VERIFY] / _RESULT_NAME
    return msgspec.json.decode(path.read_bytes(), type=Verified) if path.exists() else None
