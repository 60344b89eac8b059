"""A stand-in for the Python package `tensorrt_llm`, and for the little of torch that goes with it.

`install` puts both where an interpreter finds them: in the folder of a model of Triton's Python
backend, which the backend appends to sys.path, or in any folder of sys.path.
"""

from __future__ import annotations

import shutil
from pathlib import Path

_SOURCE = Path(__file__).parent


def install(folder: Path) -> None:
    """Copy the packages into a folder of the interpreter's path."""
    for package in ("tensorrt_llm", "torch"):
        shutil.copytree(_SOURCE / package, folder / package, dirs_exist_ok=True)
