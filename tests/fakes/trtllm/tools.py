"""What the stand-in tools do: they read what they are given and write files of the true shape.

Deterministic; refuses what the real tools refuse, with their words. FAKE_TRTLLM_CALLS names a file
that hears of each start; a tool that FAKE_TRTLLM_STOP names sleeps in the middle of its work.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from tests.fakes.trtllm.flags import WrongArguments, parse

VERSION = "1.2.1"
_ARCHITECTURES = {
    "llama": {"LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM"},
    "qwen": {"QWenLMHeadModel", "Qwen2ForCausalLM", "Qwen2MoeForCausalLM", "Qwen3ForCausalLM",
             "Qwen3MoeForCausalLM"},
    "gemma": {"GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM"},
    "glm-4-9b": {"ChatGLMModel", "ChatGLMForConditionalGeneration"},
    "phi": {"PhiForCausalLM", "Phi3ForCausalLM", "PhiMoEForCausalLM"},
}  # fmt: skip
_ALGORITHMS = {
    "int8": "W8A16", "int4": "W4A16", "fp8": "FP8", "int8_sq": "W8A8_SQ_PER_CHANNEL",
    "int4_awq": "W4A16_AWQ", "w4a8_awq": "W4A8_AWQ", "nvfp4": "NVFP4", "int8_wo": "W8A16",
    "int4_wo": "W4A16", "full_prec": None,
}  # fmt: skip


class ToolFailed(Exception):
    """An exception in the tool: exit 1 with a last line."""


class Arguments:
    """Parsed flags, by any of a flag's spellings."""

    def __init__(self, found: dict[str, list[str]]) -> None:
        self.found = found

    def text(self, *names: str, default: str = "") -> str:
        return next((self.found[name][0] for name in names if name in self.found), default)

    def number(self, *names: str, default: int = 1) -> int:
        return int(self.text(*names, default=str(default)))

    def __contains__(self, name: str) -> bool:
        return name in self.found


def main(tool: str) -> None:
    """Runs as the tool."""
    name = Path(tool).name
    if calls := os.environ.get("FAKE_TRTLLM_CALLS"):
        with Path(calls).open("a") as file:
            file.write(f"{os.getpid()} {name}\n")
    try:
        arguments = Arguments(parse(tool, sys.argv[1:]))
        if name == "trtllm-build":
            build(arguments)
        else:
            make_checkpoint(tool, arguments)
    except WrongArguments as exc:
        sys.exit(_said(f"{name}: error: {exc}", 2))
    except ToolFailed as exc:
        sys.exit(_said(f"RuntimeError: {exc}", 1))


def _said(line: str, code: int) -> int:
    sys.stderr.write(line + "\n")
    return code


def make_checkpoint(tool: str, arguments: Arguments) -> None:
    """Converts or quantizes: config.json, then rankN.safetensors."""
    source = Path(arguments.text("--model_dir", "--model-dir"))
    config = json.loads((source / "config.json").read_text())
    kind = Path(tool).parent.name
    _check_source(kind, config, arguments)
    tp = arguments.number("--tp_size", "--world-size")
    pp = arguments.number("--pp_size")
    ep = arguments.number("--moe_ep_size")
    if "--moe_tp_size" in arguments and arguments.number("--moe_tp_size") * ep != tp:
        raise ToolFailed("moe_tp_size * moe_ep_size must equal to tp_size")
    weights = hashlib.sha256()
    for path in sorted(source.glob("*.safetensors")):
        weights.update(path.read_bytes())
    out = Path(arguments.text("--output_dir", "--output-model-dir"))
    out.mkdir(parents=True, exist_ok=True)
    made = {
        "architecture": config["architectures"][0],
        "dtype": arguments.text("--dtype"),
        "logits_dtype": "float32",
        "vocab_size": config.get("padded_vocab_size") or config["vocab_size"],
        "max_position_embeddings": config.get("seq_length") or config["max_position_embeddings"],
        "hidden_size": config["hidden_size"],
        "num_hidden_layers": config.get("num_hidden_layers") or config["num_layers"],
        "num_attention_heads": config["num_attention_heads"],
        "mapping": {
            "world_size": tp * pp, "gpus_per_node": 8, "cp_size": 1, "tp_size": tp, "pp_size": pp,
            "moe_tp_size": tp // ep, "moe_ep_size": ep,
        },
        "quantization": _quantization(arguments),
    }  # fmt: skip
    for name in ("--max_draft_len", "--num_eagle_layers", "--num_medusa_heads"):
        if name in arguments:
            made[name.lstrip("-")] = arguments.number(name)
    _write(out / "config.json", json.dumps(made, indent=1, sort_keys=True).encode())
    _pause(Path(tool).name)
    for rank in range(tp * pp):
        _write(out / f"rank{rank}.safetensors", _safetensors(f"{weights.hexdigest()} {rank}"))


def _check_source(kind: str, config: dict[str, Any], arguments: Arguments) -> None:
    architecture = config["architectures"][0]
    if kind in _ARCHITECTURES and architecture not in _ARCHITECTURES[kind]:
        raise ToolFailed(f"Invalid model type {architecture}")
    if kind in ("medusa", "eagle"):
        draft = Path(arguments.text("--medusa_model_dir", "--eagle_model_dir"))
        if not (draft / "config.json").is_file():
            raise ToolFailed(f"{draft} has no config.json")
    if kind in ("glm-4-9b", "phi") and arguments.number("--pp_size") != 1:
        raise ToolFailed("Pipeline parallelism is not supported.")
    if kind == "gemma" and "--use_weight_only" in arguments:
        assert "--weight_only_precision" in arguments
    if kind == "quantization":
        _check_calibration(arguments)


def _check_calibration(arguments: Arguments) -> None:
    """As get_calib_dataloader: a folder that is here, with texts. There is no network."""
    folder = Path(arguments.text("--calib_dataset", default="cnn_dailymail"))
    if not folder.is_dir():
        raise ToolFailed(f"Unsupported dataset name or local repo directory: {folder}.")
    lines = (folder / "train.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    if not texts:
        raise ToolFailed("the data set has no texts")


def _quantization(arguments: Arguments) -> dict[str, Any]:
    chosen = arguments.text("--qformat")
    if not chosen and "--use_weight_only" in arguments:
        chosen = arguments.text("--weight_only_precision")
    kv = arguments.text("--kv_cache_dtype")
    group = arguments.number("--awq_block_size") if "awq" in chosen else None
    return {
        "quant_algo": _ALGORITHMS[chosen] if chosen else None,
        "kv_cache_quant_algo": kv.upper() or None,
        "group_size": group,
    }


def build(arguments: Arguments) -> None:
    """Builds: rankN.engine, then config.json, and the timing cache where it runs."""
    source = Path(arguments.text("--checkpoint_dir"))
    model = json.loads((source / "config.json").read_text())
    world = model["mapping"]["world_size"]
    ranks = [source / f"rank{rank}.safetensors" for rank in range(world)]
    for path in ranks:
        if not path.is_file():
            raise ToolFailed(f"{path} does not exist")
    has_paged = arguments.text("--use_paged_context_fmha", default="enable") == "enable"
    _check_build(arguments, model, has_paged)
    out = Path(arguments.text("--output_dir", default="engine_outputs"))
    out.mkdir(parents=True, exist_ok=True)
    for rank, path in enumerate(ranks):
        content = hashlib.sha256(path.read_bytes()).digest()
        _write(out / f"rank{rank}.engine", content * 8)
        _pause("trtllm-build")
    made = {
        "version": VERSION,
        "pretrained_config": model,
        "build_config": _build_config(arguments, has_paged),
    }
    _write(out / "config.json", json.dumps(made, indent=1, sort_keys=True).encode())
    Path(arguments.text("--output_timing_cache", default="model.cache")).write_text(
        str(time.time())  # of a timing cache no two are equal
    )


def _check_build(arguments: Arguments, model: dict[str, Any], has_paged: bool) -> None:
    """builder.py: what it raises, and the asserts of the GPU's kernels."""
    quantization = model["quantization"]
    kv = quantization["kv_cache_quant_algo"]
    if has_paged and kv == "INT8":
        raise ToolFailed("Paged Context FMHA doesn't work with int8 kv cache currently.")
    if has_paged and kv == "FP8" and quantization["quant_algo"] != "FP8":
        raise ToolFailed("FP8 Paged Context FMHA only works with fp8 quantization workflow")
    if arguments.number("--max_input_len", default=1024) > arguments.number("--max_seq_len"):
        raise ToolFailed("max_input_len should not be larger than max_seq_len")
    if arguments.number("--max_seq_len") > model["max_position_embeddings"]:
        raise ToolFailed("max_seq_len is larger than max_position_embeddings")
    for folder in arguments.found.get("--lora_dir", []):
        if not (Path(folder) / "adapter_config.json").is_file():
            raise ToolFailed(f"{folder} has no adapter_config.json")


def _build_config(arguments: Arguments, has_paged: bool) -> dict[str, Any]:
    has_lora = arguments.text("--lora_plugin", default="disable") != "disable"
    modes = {"": 1, "draft_tokens_external": 2, "medusa": 4, "lookahead_decoding": 8, "eagle": 32}
    return {
        "max_input_len": arguments.number("--max_input_len", default=1024),
        "max_seq_len": arguments.number("--max_seq_len"),
        "max_batch_size": arguments.number("--max_batch_size", default=2048),
        "max_beam_width": arguments.number("--max_beam_width"),
        "max_num_tokens": arguments.number("--max_num_tokens", default=8192),
        "kv_cache_type": arguments.text("--kv_cache_type", default="paged").upper(),
        "max_draft_len": arguments.number("--max_draft_len", default=0),
        "speculative_decoding_mode": modes[arguments.text("--speculative_decoding_mode")],
        "lora_config": {
            "lora_dir": [Path(path).name for path in arguments.found.get("--lora_dir", [])],
            "max_lora_rank": arguments.number("--max_lora_rank", default=64),
            "lora_target_modules": arguments.found.get("--lora_target_modules", ["attn_qkv"]),
        },
        "plugin_config": {
            "gemm_plugin": arguments.text("--gemm_plugin", default="disable"),
            "lora_plugin": "auto" if has_lora else None,
            "use_paged_context_fmha": has_paged,
            "tokens_per_block": 32,
        },
    }


def _safetensors(content: str) -> bytes:
    values = hashlib.sha256(content.encode()).digest()
    header = json.dumps({"w": {"dtype": "F16", "shape": [16], "data_offsets": [0, 32]}}).encode()
    return len(header).to_bytes(8, "little") + header + values


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _pause(tool: str) -> None:
    """Half of the work is done: here the test kills."""
    if os.environ.get("FAKE_TRTLLM_STOP") == tool:
        with Path(os.environ["FAKE_TRTLLM_CALLS"]).open("a") as file:
            file.write(f"{os.getpid()} in the middle of {tool}\n")
        time.sleep(3600)
