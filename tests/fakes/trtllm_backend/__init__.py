"""A stand-in for NVIDIA's C++ backend `tensorrtllm`, as a Python-based backend of Triton.

Triton finds it by the backend's name, so that a rendered tensorrt_llm/config.pbtxt is served as it
is. What it takes, refuses and gives is written after the C++ sources, not after our own code:
inflight_batcher_llm/src/{model_instance_state,utils}.cc of triton-inference-server's
tensorrtllm_backend, and cpp/tensorrt_llm/executor/executorImpl.cpp of TensorRT-LLM.

Its own limits: one prompt a request, no beams, nothing of encoders, prompt tables, logits or
disaggregated serving. The engine is noise: config.json is all that is read of it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

_ENTRY = "from tests.fakes.trtllm_backend.model import TritonPythonModel  # noqa: F401\n"


def install(home: Path) -> None:
    """Put the backend where the embedded Triton of this home folder, now running, looks for it.

    Triton takes the Python backend for it, and wants no links there: they lead out of the folder.
    """
    backends = home / "state" / "triton_backends"
    for link in (backends / "python").iterdir():
        target = link.resolve()
        if link.is_symlink():
            link.unlink()
            shutil.copy(target, link)
    folder = backends / "tensorrtllm"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(_ENTRY)
