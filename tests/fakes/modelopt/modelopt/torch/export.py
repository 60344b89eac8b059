"""`export_hf_checkpoint`: the files of a unified checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any


def export_hf_checkpoint(
    model: Any, dtype: Any = None, export_dir: str = "", save_modelopt_state: bool = False
) -> None:
    out = Path(export_dir)
    out.mkdir(parents=True, exist_ok=True)
    quantization = {
        "quant_algo": model.quant_cfg["*"],
        "kv_cache_quant_algo": model.quant_cfg.get("*[kv]_bmm_quantizer"),
        "exclude_modules": ["lm_head"],
    }
    config = {"producer": {"name": "modelopt", "version": "0.37.0"}, "quantization": quantization}
    (out / "hf_quant_config.json").write_text(json.dumps(config))
    (out / "generation_config.json").write_text("{}")
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(model.path / name, out / name)
