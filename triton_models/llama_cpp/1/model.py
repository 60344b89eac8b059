"""Triton's Python backend speaks to the llama.cpp engine through this file.

Runs in the backend's stub, which takes the first `python3` of the PATH: the environment's own,
where the project is importable.
"""

from __future__ import annotations

from triton_models.llama_cpp.engine import load_batcher
from triton_models.triton_model import BatchingModel


class TritonPythonModel(BatchingModel):
    """What Triton calls."""

    load = load_batcher
