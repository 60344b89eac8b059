"""The command lines that make a TensorRT engine: convert or quantize, then build.

Flags and their spelling are those of TensorRT-LLM 1.2.1: examples/models/*/convert_checkpoint.py,
examples/quantization/quantize.py and tensorrt_llm/commands/build.py. Runs nothing.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import PurePath

from build_engines.families.choices import AWQ_GROUP
from build_engines.families.family import EngineFlow
from build_engines.tensorrt.engine_options import EngineOptions

QUANTIZE = "quantization/quantize.py"
_EAGLE = "eagle/convert_checkpoint.py"
_MEDUSA = "medusa/convert_checkpoint.py"
GPUS_PER_NODE = 8
TIMING_CACHE = "model.cache"  # in the directory where trtllm-build runs
CALIBRATION_SAMPLES = 512
# AWQ searches a scale for every group: upstream's READMEs give it 32 texts
AWQ_SAMPLES = 32

_QFORMATS = {"fp16": "full_prec", "bf16": "full_prec"}
_WEIGHT_ONLY = {"int8_wo": "int8", "int4_wo": "int4"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a build's tools find things, as the tools see it: in the container or outside."""

    examples: PurePath  # the folder examples/ of TensorRT-LLM v1.2.1
    checkpoint: PurePath
    calibration: PurePath | None = None  # a data set's folder with a column `text`
    adapters: tuple[PurePath, ...] = ()
    draft: PurePath | None = None  # checkpoint of Medusa's heads or of EAGLE's draft network

    @property
    def inputs(self) -> tuple[PurePath, ...]:
        """What the tools read of the user's, the examples left out."""
        optional = (self.calibration, self.draft)
        return (self.checkpoint, *self.adapters, *(path for path in optional if path))


def show(command: tuple[str, ...]) -> str:
    """A command as one types it."""
    return shlex.join(command)


def checkpoint_command(
    flow: EngineFlow, options: EngineOptions, places: Places, output: PurePath
) -> tuple[str, ...]:
    """Makes a TensorRT-LLM checkpoint: config.json and rankN.safetensors."""
    if options.is_calibrated:
        return _quantize(options, places, output)
    if options.drafting is not None and options.drafting.has_own_script:
        return _convert_with_draft(options, places, output)
    script = str(places.examples / flow.script)
    if flow.is_gemma:
        return ("python3", script, *_gemma_flags(options, places, output))
    return ("python3", script, *_convert_flags(flow, options, places, output))


def build_command(
    options: EngineOptions,
    places: Places,
    checkpoint: PurePath,
    output: PurePath,
    num_gpus: int | None = None,
) -> tuple[str, ...]:
    """Makes an engine of a TensorRT-LLM checkpoint: config.json and rankN.engine.

    `num_gpus`: of the machine that builds. A worker takes one of its own, so there must not be
    more of them; one after the other, one GPU builds for all ranks. None: as many as will serve.
    """
    limits = options.limits
    workers = min(options.world_size, num_gpus or options.world_size, GPUS_PER_NODE)
    return (
        "trtllm-build",
        *_flag("--checkpoint_dir", checkpoint),
        *_flag("--output_dir", output),
        *_gemm_flags(options),
        *_flag("--max_batch_size", limits.max_batch_size),
        *_flag("--max_input_len", limits.max_input_len),
        *_flag("--max_seq_len", limits.max_seq_len),
        *_flag("--max_num_tokens", limits.max_num_tokens),
        *_flag("--max_beam_width", limits.max_beam_width),
        *_flag("--kv_cache_type", "paged"),
        *_flag("--use_paged_context_fmha", "enable" if options.has_paged_context else "disable"),
        *_flag("--input_timing_cache", TIMING_CACHE),
        *_flag("--output_timing_cache", TIMING_CACHE),
        *_flag("--workers", workers),
        *_lora_flags(options, places),
        *_draft_flags(options),
    )


def _flag(name: str, value: object) -> tuple[str, str]:
    return name, str(value)


def _convert_flags(
    flow: EngineFlow, options: EngineOptions, places: Places, output: PurePath
) -> tuple[str, ...]:
    version = flow.chatglm_version
    return (
        *_flag("--model_dir", places.checkpoint),
        *(_flag("--chatglm_version", version) if version else ()),
        *_flag("--output_dir", output),
        *_flag("--dtype", options.dtype),
        *_parallel_flags(options, has_pp=flow.has_pp),
        *_expert_flags(options),
        *_weight_only_flags(options),
        *_flag("--workers", min(options.world_size, GPUS_PER_NODE)),
    )


def _gemma_flags(options: EngineOptions, places: Places, output: PurePath) -> tuple[str, ...]:
    return (
        *_flag("--ckpt-type", "hf"),
        *_flag("--model-dir", places.checkpoint),
        *_flag("--output-model-dir", output),
        *_flag("--dtype", options.dtype),
        *_flag("--world-size", options.tp_size),
        *_weight_only_flags(options),
    )


def _convert_with_draft(
    options: EngineOptions, places: Places, output: PurePath
) -> tuple[str, ...]:
    """Medusa and EAGLE have scripts of their own, for Llama's architecture."""
    drafting = options.drafting
    assert drafting is not None
    assert places.draft is not None  # checked with the options
    common = (
        *_flag("--model_dir", places.checkpoint),
        *_flag("--output_dir", output),
        *_flag("--dtype", options.dtype),
        *_flag("--tp_size", options.tp_size),
        *_flag("--workers", min(options.world_size, GPUS_PER_NODE)),
    )
    own: tuple[str, ...]
    if drafting.mode == "medusa":
        own = (
            *_flag("--medusa_model_dir", places.draft),
            *_flag("--num_medusa_heads", drafting.num_heads),
        )
        return ("python3", str(places.examples / _MEDUSA), *common, *own)
    own = (
        *_flag("--eagle_model_dir", places.draft),
        *_flag("--max_draft_len", drafting.max_draft_len),
        *_flag("--num_eagle_layers", drafting.depth),
    )
    return ("python3", str(places.examples / _EAGLE), *common, *own)


def _quantize(options: EngineOptions, places: Places, output: PurePath) -> tuple[str, ...]:
    """ModelOpt's quantization. Its calibration data is local: the tool has no network."""
    assert places.calibration is not None  # checked with the options
    is_awq = options.quantization.endswith("awq")
    return (
        "python3",
        str(places.examples / QUANTIZE),
        *_flag("--model_dir", places.checkpoint),
        *_flag("--output_dir", output),
        *_flag("--dtype", options.dtype),
        *_flag("--qformat", _QFORMATS.get(options.quantization, options.quantization)),
        *(_flag("--kv_cache_dtype", options.kv_cache) if options.kv_cache != "auto" else ()),
        *(_flag("--awq_block_size", AWQ_GROUP) if is_awq else ()),
        *_flag("--calib_dataset", places.calibration),
        *_flag("--calib_size", AWQ_SAMPLES if is_awq else CALIBRATION_SAMPLES),
        *_parallel_flags(options, has_pp=True),
    )


def _parallel_flags(options: EngineOptions, *, has_pp: bool) -> tuple[str, ...]:
    pipeline = _flag("--pp_size", options.pp_size) if has_pp and options.pp_size > 1 else ()
    return (*_flag("--tp_size", options.tp_size), *pipeline)


def _expert_flags(options: EngineOptions) -> tuple[str, ...]:
    """The scripts want moe_tp_size x moe_ep_size = tp_size."""
    if options.ep_size == 1:
        return ()
    return (
        *_flag("--moe_tp_size", options.tp_size // options.ep_size),
        *_flag("--moe_ep_size", options.ep_size),
    )


def _weight_only_flags(options: EngineOptions) -> tuple[str, ...]:
    precision = _WEIGHT_ONLY.get(options.quantization)
    if precision is None:
        return ()
    return ("--use_weight_only", *_flag("--weight_only_precision", precision))


def _gemm_flags(options: EngineOptions) -> tuple[str, ...]:
    """Not for FP8 and NVFP4, whose matrices TensorRT multiplies itself (Gemma's README)."""
    return () if options.quantization in ("fp8", "nvfp4") else _flag("--gemm_plugin", "auto")


def _lora_flags(options: EngineOptions, places: Places) -> tuple[str, ...]:
    if options.lora is None:
        return ()
    directories = ("--lora_dir", *map(str, places.adapters)) if places.adapters else ()
    modules = options.lora.target_modules
    return (
        *_flag("--lora_plugin", "auto"),
        *directories,
        *_flag("--max_lora_rank", options.lora.max_rank),
        *(("--lora_target_modules", *modules) if modules else ()),
    )


def _draft_flags(options: EngineOptions) -> tuple[str, ...]:
    drafting = options.drafting
    if drafting is None:
        return ()
    mode = _flag("--speculative_decoding_mode", drafting.build_mode)
    if drafting.has_own_script:  # its checkpoint says how long a draft is
        return mode
    return (*mode, *_flag("--max_draft_len", drafting.max_draft_len))
