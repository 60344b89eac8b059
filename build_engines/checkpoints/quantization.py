"""How a Hugging Face checkpoint is quantized already, in the words of our variants."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from build_engines.checkpoints.checkpoint import Checkpoint
from build_engines.errors import SourceError

MODELOPT_FILE = "hf_quant_config.json"
# ModelOpt's names (tensorrt_llm/quantization/mode.py), and Hugging Face's `quant_method`
_MODELOPT = {"FP8": "fp8", "NVFP4": "nvfp4", "W4A16_AWQ": "int4_awq", "W4A8_AWQ": "w4a8_awq"}
_METHODS = {"fp8": "fp8", "mxfp4": "mxfp4"}


def quantization_of(checkpoint: Checkpoint) -> str | None:
    """None: it is not. Raises SourceError for what the PyTorch backend cannot read."""
    path = checkpoint.path / MODELOPT_FILE
    if path.is_file():
        try:
            config = json.loads(path.read_text(encoding="utf-8"))["quantization"]
        except (ValueError, KeyError) as exc:
            raise SourceError(f"{path} is damaged: fetch the checkpoint again") from exc
        return _named(config, "quant_algo", _MODELOPT)
    config = checkpoint.config.get("quantization_config")
    if not isinstance(config, dict):
        return None
    if "quant_algo" in config:
        return _named(config, "quant_algo", _MODELOPT)
    return _named(config, "quant_method", _METHODS)


def _named(config: Mapping[str, Any], key: str, names: Mapping[str, str]) -> str | None:
    value = config.get(key)
    if value is None:
        return None
    if value not in names:
        raise SourceError(
            f"the checkpoint is quantized as {value}, which TensorRT-LLM's PyTorch backend is not "
            f"known to read here: take one of {', '.join(names)}, or one that is not quantized"
        )
    return names[value]
