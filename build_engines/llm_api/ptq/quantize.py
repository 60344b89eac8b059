"""Quantizes a Hugging Face checkpoint with ModelOpt, for TensorRT-LLM's PyTorch backend.

A program of its own: it runs where TensorRT-LLM is (ModelOpt 0.37, torch), and imports nothing of
ours. What it writes is a "unified" checkpoint, whose hf_quant_config.json the backend reads.
Sources: modelopt.torch.quantization and modelopt.torch.export of nvidia-modelopt 0.37.0;
docs/source/features/quantization.md of TensorRT-LLM.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# quantization of a variant -> the configuration in modelopt.torch.quantization
CONFIGS = {
    "fp8": "FP8_DEFAULT_CFG",
    "nvfp4": "NVFP4_DEFAULT_CFG",
    "int4_awq": "INT4_AWQ_CFG",
    "w4a8_awq": "W4A8_AWQ_BETA_CFG",
}
KV_CONFIGS = {"fp8": "FP8_KV_CFG"}
DTYPES = {"fp16": "float16", "bf16": "bfloat16"}


def main() -> None:
    """Raises SystemExit with the reason for texts that cannot be used."""
    arguments = _arguments()
    import modelopt.torch.quantization as mtq
    import torch
    from modelopt.torch.export import export_hf_checkpoint
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    tokenizer = Tokenizer.from_file(str(arguments.tokenizer))
    prompts = [
        tokenizer.encode(text).ids[: arguments.max_length]
        for text in _texts(arguments.texts, arguments.samples)
    ]
    model = AutoModelForCausalLM.from_pretrained(
        arguments.checkpoint,
        dtype=getattr(torch, DTYPES[arguments.dtype]),
        device_map="auto" if torch.cuda.is_available() else None,
        trust_remote_code=False,
    )

    def calibrate(model: Any) -> None:
        with torch.no_grad():
            for number, token_ids in enumerate(prompts, 1):
                model(torch.tensor([token_ids], device=model.device))
                sys.stdout.write(f"calibrated {number}/{len(prompts)}\n")

    mtq.quantize(model, _config(mtq, arguments), calibrate)
    with torch.inference_mode():
        export_hf_checkpoint(model, export_dir=str(arguments.output))


def _config(mtq: Any, arguments: argparse.Namespace) -> Any:
    config = copy.deepcopy(getattr(mtq, CONFIGS[arguments.format]))
    if arguments.kv_cache != "auto":
        config["quant_cfg"].update(getattr(mtq, KV_CONFIGS[arguments.kv_cache])["quant_cfg"])
    return config


def _texts(folder: Path, number: int) -> Iterator[str]:
    """The first texts of the folder's .jsonl files, in the order of their names."""
    lines = (
        line
        for path in sorted(folder.rglob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    )
    found = [text for line, _ in zip(lines, range(number), strict=False) if (text := _text(line))]
    if not found:
        raise SystemExit(f'there are no lines of {{"text": "..."}} in .jsonl files of {folder}')
    yield from found


def _text(line: str) -> str:
    try:
        return str(json.loads(line)["text"])
    except (ValueError, KeyError, TypeError):
        return ""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--format", choices=CONFIGS, required=True)
    parser.add_argument("--kv-cache", choices=["auto", *KV_CONFIGS], default="auto")
    parser.add_argument("--dtype", choices=DTYPES, required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--max-length", type=int, default=512)
    return parser.parse_args()


if __name__ == "__main__":
    main()
