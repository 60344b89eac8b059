"""Stand-ins for ModelOpt 0.37 and the little of torch and transformers that quantizing calls.

`install` puts them into a folder of PYTHONPATH, where they come before what is installed. Checked
against the real ModelOpt 0.37.0: it takes the same calls and writes files of the same names.
"""

from __future__ import annotations

import shutil
from pathlib import Path

_SOURCE = Path(__file__).parent


def install(folder: Path) -> None:
    """Copy the packages into a folder of PYTHONPATH."""
    for package in ("modelopt", "torch", "transformers"):
        shutil.copytree(_SOURCE / package, folder / package, dirs_exist_ok=True)
