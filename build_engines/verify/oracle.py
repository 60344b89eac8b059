"""The unquantized model: what a built model's log-probs are held to.

An oracle works in a process of its own (`python -m build_engines.verify.oracle`), since its library
takes memory that the build gets back, and is not to be loaded beside another version of itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class OracleFormat(StrEnum):
    """What reads the reference."""

    GGUF = "gguf"  # llama.cpp, one file
    OPENVINO = "openvino"  # OpenVINO in float32, a folder with openvino_model.xml


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracle:
    """Where the unquantized model lies, until the build is over."""

    format: OracleFormat
    path: Path
    description: str  # for the manifest: "llama.cpp on SmolLM2-135M-Instruct.Q4_1.gguf"
