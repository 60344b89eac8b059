"""Configurations, and `quantize`, which only remembers which one it was given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

FP8_DEFAULT_CFG: dict[str, Any] = {"quant_cfg": {"*": "FP8"}}
NVFP4_DEFAULT_CFG: dict[str, Any] = {"quant_cfg": {"*": "NVFP4"}}
INT4_AWQ_CFG: dict[str, Any] = {"quant_cfg": {"*": "W4A16_AWQ"}}
W4A8_AWQ_BETA_CFG: dict[str, Any] = {"quant_cfg": {"*": "W4A8_AWQ"}}
FP8_KV_CFG: dict[str, Any] = {"quant_cfg": {"*[kv]_bmm_quantizer": "FP8"}}


def quantize(model: Any, config: dict[str, Any], forward_loop: Callable[[Any], None]) -> Any:
    forward_loop(model)
    if not model.num_calls:
        raise RuntimeError("the forward loop has not called the model")
    model.quant_cfg = config["quant_cfg"]
    return model
