"""What `tensorrt_llm.LLM` is told: a variant with every choice made and checked, as a JSON object.

The names are those of TorchLlmArgs, KvCacheConfig, LoraConfig and the decoding configurations in
tensorrt_llm/llmapi/llm_args.py and tensorrt_llm/lora_helper.py of TensorRT-LLM 1.2. Paths are those
inside the artefact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from build_engines.checkpoints.architecture import Architecture
from build_engines.errors import ChoiceError
from build_engines.families.choices import check_choice
from build_engines.families.family import Family
from build_engines.gpu.gpus import Gpu
from build_engines.tensorrt.engine_options import (
    DEFAULT_BATCH_SIZE,
    DEFAULT_NUM_TOKENS,
    HF_LORA_MODULES,
    EngineLimits,
)
from build_engines.variants import Lora, Speculative, Variant

DRAFT_DIR = "draft"
_DTYPES = {"fp16": "float16", "bf16": "bfloat16"}
_DEFAULT_DRAFT_LEN = 3
# `mode` of a spec -> `decoding_type`; the backend has neither Medusa's heads nor lookahead
_DECODING_TYPES = {"draft_target": "DraftTarget", "eagle": "Eagle"}


def llm_limits(
    family: Family,
    variant: Variant,
    architecture: Architecture,
    max_seq_len: int | None,
    gpu: Gpu | None = None,
) -> EngineLimits:
    """Fills in what the variant leaves open. Raises ChoiceError for what cannot be served."""
    check_choice(family, variant, gpu, architecture)
    longest = architecture.max_position_embeddings
    chosen = max_seq_len or longest
    if chosen > longest:
        raise ChoiceError(
            f"max_seq_len is {chosen}, the model is made for {longest}: set it to {longest} or less"
        )
    given = variant.limits
    input_len = given.max_input_len or chosen - 1  # one token must fit behind the prompt
    if input_len >= chosen:
        raise ChoiceError(
            f"max_input_len is {input_len}, of max_seq_len {chosen}: no token would fit behind it; "
            f"set it to {chosen - 1} or less"
        )
    return EngineLimits(
        max_batch_size=given.max_batch_size or DEFAULT_BATCH_SIZE,
        max_input_len=input_len,
        max_seq_len=chosen,
        max_num_tokens=given.max_num_tokens or DEFAULT_NUM_TOKENS,
    )


def llm_options(
    variant: Variant, limits: EngineLimits, lora_modules: tuple[str, ...] = ()
) -> Mapping[str, Any]:
    """The content of llm_options.json.

    Args:
        lora_modules: what the adapters change, in Hugging Face's or TensorRT-LLM's names; needed
            where the variant has LoRA and names no modules.

    Raises ChoiceError for a speculative mode or modules that the backend does not have.
    """
    options: dict[str, Any] = {
        "backend": "pytorch",
        "dtype": _DTYPES.get(variant.quantization, "auto"),
        "tensor_parallel_size": variant.tp_size,
        "pipeline_parallel_size": variant.pp_size,
        "max_batch_size": limits.max_batch_size,
        "max_input_len": limits.max_input_len,
        "max_seq_len": limits.max_seq_len,
        "max_num_tokens": limits.max_num_tokens,
        "enable_chunked_prefill": True,  # prompts may be longer than a step
        "enable_iter_perf_stats": True,  # the gauges
        "guided_decoding_backend": "xgrammar",
        "kv_cache_config": {
            "enable_block_reuse": True,
            "free_gpu_memory_fraction": 0.9,
            "dtype": variant.kv_cache,
        },
    }
    if variant.sampler_type != "auto":
        options["sampler_type"] = _sampler_type(variant)
    if variant.ep_size > 1:
        options["moe_expert_parallel_size"] = variant.ep_size
        options["moe_tensor_parallel_size"] = variant.tp_size // variant.ep_size
    if variant.lora is not None:
        options["lora_config"] = _lora(variant.lora, lora_modules)
    if variant.speculative is not None:
        options["speculative_config"] = _speculative(variant.speculative)
    return options


def _sampler_type(variant: Variant) -> str:
    """`auto` is the TorchSampler; what each can do is in triton_models/llm_api/options.py."""
    if variant.sampler_type == "TRTLLMSampler" and variant.speculative is not None:
        raise ChoiceError(
            "the TRTLLMSampler cannot do speculative decoding: leave sampler_type out, or "
            "[speculative]"
        )
    return variant.sampler_type


def _lora(lora: Lora, found: tuple[str, ...]) -> Mapping[str, Any]:
    names = lora.target_modules or found
    if not names:
        raise ChoiceError(
            "the modules that LoRA adapters change are not known: give an adapter's folder, or "
            "lora.target_modules"
        )
    modules = sorted({HF_LORA_MODULES.get(name, name) for name in names})
    unknown = [name for name in modules if name not in HF_LORA_MODULES.values()]
    if unknown:
        raise ChoiceError(
            f"the PyTorch backend has no LoRA for {unknown[0]}: choose among "
            f"{', '.join(HF_LORA_MODULES.values())}"
        )
    at_once = max(len(lora.adapters), 1)
    return {
        "lora_target_modules": modules,
        "max_lora_rank": lora.max_rank,
        "max_loras": at_once,
        "max_cpu_loras": at_once,
    }


def _speculative(speculative: Speculative) -> Mapping[str, Any]:
    if speculative.mode not in _DECODING_TYPES:
        raise ChoiceError(
            f"the PyTorch backend has no {speculative.mode}: choose draft_target or eagle (EAGLE-3)"
        )
    if speculative.choices is not None:
        raise ChoiceError(
            "the PyTorch backend guesses one line of tokens ahead, no tree: leave "
            "speculative.choices out"
        )
    return {
        "decoding_type": _DECODING_TYPES[speculative.mode],
        "max_draft_len": speculative.max_draft_len or _DEFAULT_DRAFT_LEN,
        "speculative_model_dir": DRAFT_DIR,
    }
