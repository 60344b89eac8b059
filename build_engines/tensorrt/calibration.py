"""The texts that quantizing is calibrated with: a folder of the user's, named by a variable."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from build_engines.errors import ChoiceError
from build_engines.tensorrt.toolchain import ToolSettings

JSON_LINES = (".jsonl",)
DATA_SETS = (*JSON_LINES, ".json", ".parquet", ".csv", ".txt", ".arrow")
_NOT_NAMED = Path("CALIBRATION_DATA")  # stands in the commands of a plan
_HOW = 'a train.jsonl, lines of {"text": "..."}'


def calibration_folder(settings: ToolSettings) -> Path:
    """The folder; while none is named, what stands for it in a plan."""
    return settings.calibration or _NOT_NAMED


def require_texts(settings: ToolSettings, what: str, suffixes: Collection[str]) -> None:
    """Raises ChoiceError where there are no texts to calibrate `what` with."""
    folder = settings.calibration
    if folder is None:
        raise ChoiceError(
            f"{what} is calibrated with texts like those that will be asked: name a folder with "
            f"{_HOW}, in INFLIGHT_CALIBRATION_DATA"
        )
    if not any(path.suffix in suffixes for path in folder.rglob("*")):
        raise ChoiceError(
            f"INFLIGHT_CALIBRATION_DATA is {folder}, which is no folder with texts: put {_HOW}, "
            "there"
        )
