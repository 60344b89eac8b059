"""What a TensorRT engine is built for: a variant with every choice made and checked.

The defaults are ours: the tools' own (max_input_len 1024, max_batch_size 2048) fit few models.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from build_engines.artefacts.artefact import is_safe_name
from build_engines.checkpoints.architecture import Architecture
from build_engines.errors import ChoiceError
from build_engines.families.choices import check_choice
from build_engines.families.drafting import Drafting, make_drafting
from build_engines.families.family import EngineFlow, Family
from build_engines.gpu.gpus import Gpu
from build_engines.variants import Lora, Variant

DEFAULT_BATCH_SIZE = 64
DEFAULT_NUM_TOKENS = 8192
_DTYPES = {"fp16": "float16", "bf16": "bfloat16"}
_CALIBRATED = ("fp8", "int8_sq", "int4_awq", "w4a8_awq", "nvfp4")
# Hugging Face's names of projections -> TensorRT-LLM's (tensorrt_llm/lora_helper.py)
HF_LORA_MODULES = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_dense",
    "gate_proj": "mlp_h_to_4h",
    "down_proj": "mlp_4h_to_h",
    "up_proj": "mlp_gate",
    "gate_up_proj": "mlp_gate_up",
}
# Names of `--lora_target_modules` (tensorrt_llm/lora_manager.py, LORA_MODULE_IDS).
LORA_MODULES = ("attn_qkv", "attn_q", "attn_k", "attn_v", "attn_dense", "mlp_h_to_4h",
                "mlp_4h_to_h", "mlp_gate", "mlp_gate_up", "moe_h_to_4h", "moe_4h_to_h", "moe_gate",
                "moe_router", "mlp_router")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """Upper bounds that are compiled into an engine."""

    max_batch_size: int  # requests in flight
    max_input_len: int  # tokens of a prompt
    max_seq_len: int  # tokens of a prompt and its output
    max_num_tokens: int  # tokens of a step, over all requests
    max_beam_width: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """All that the command lines follow from, places left out."""

    quantization: str
    kv_cache: str
    dtype: str  # of what is not quantized
    tp_size: int
    pp_size: int
    ep_size: int
    limits: EngineLimits
    lora: Lora | None = None
    drafting: Drafting | None = None

    @property
    def world_size(self) -> int:
        """Processes, and GPUs, that the engine runs on."""
        return self.tp_size * self.pp_size

    @property
    def is_calibrated(self) -> bool:
        """Whether quantize.py makes the checkpoint, from calibration data."""
        return self.quantization in _CALIBRATED or self.kv_cache != "auto"

    @property
    def calibrated_part(self) -> str:
        """What the calibration data is for."""
        return self.quantization if self.kv_cache == "auto" else f"kv_cache {self.kv_cache}"

    @property
    def has_paged_context(self) -> bool:
        """Whether prefixes can be shared and long prompts cut into chunks.

        Its kernels read no int8 KV cache, and an FP8 one only beside FP8 weights
        (cpp/tensorrt_llm/common/attentionOp.cpp, "Paged Context FMHA doesn't work with ...").
        """
        if self.kv_cache == "fp8":
            return self.quantization == "fp8"
        return self.kv_cache != "int8"


def engine_options(
    family: Family,
    variant: Variant,
    architecture: Architecture,
    max_seq_len: int | None,
    gpu: Gpu | None = None,
) -> EngineOptions:
    """Fills in what the variant leaves open. Raises ChoiceError for what cannot be built.

    `max_seq_len`: the variant's or the spec's; None: what the model was trained for.
    """
    check_choice(family, variant, gpu, architecture)
    flow = family.engine
    assert flow is not None  # checked
    options = EngineOptions(
        quantization=variant.quantization,
        kv_cache=variant.kv_cache,
        dtype=_dtype(flow, variant.quantization),
        tp_size=variant.tp_size,
        pp_size=variant.pp_size,
        ep_size=variant.ep_size,
        limits=_limits(family, variant, architecture, max_seq_len),
        lora=None if variant.lora is None else _lora(variant.lora),
        drafting=None if variant.speculative is None else make_drafting(variant.speculative),
    )
    _check_experts(options)
    if options.drafting is not None:
        windows = architecture.attention_windows(options.limits.max_seq_len)
        _check_drafting(family, flow, options, options.drafting, has_windows=bool(windows))
    return options


def _dtype(flow: EngineFlow, quantization: str) -> str:
    if flow.is_gemma and quantization == "int8_sq":
        return "float16"  # "For SmoothQuant, TRT-LLM only supports FP16 higher precision now"
    return _DTYPES.get(quantization, flow.dtype)


def _limits(
    family: Family, variant: Variant, arch: Architecture, max_seq_len: int | None
) -> EngineLimits:
    assert family.engine is not None
    longest = min(arch.max_position_embeddings, family.engine.max_seq_len or 1 << 31)
    chosen = max_seq_len or longest
    if chosen > longest:
        raise ChoiceError(
            f"max_seq_len is {chosen}, engines of {family.name} go to {longest} for this model"
            f"{_because(family)}: set max_seq_len to {longest} or less"
        )
    given = variant.limits
    input_len = given.max_input_len or chosen - 1  # one token must fit behind the prompt
    if input_len >= chosen:
        raise ChoiceError(
            f"max_input_len is {input_len}, of max_seq_len {chosen}: no token would fit behind it; "
            f"set it to {chosen - 1} or less"
        )
    tokens = given.max_num_tokens or DEFAULT_NUM_TOKENS
    if given.max_num_tokens is None and not _can_chunk(variant):
        tokens = max(tokens, input_len)  # a prompt goes through in one step
    if tokens < input_len and not _can_chunk(variant):
        raise ChoiceError(
            f"max_num_tokens is {tokens}, less than max_input_len {input_len}, and this engine "
            "cannot cut prompts into chunks: raise the former or lower the latter"
        )
    return EngineLimits(
        max_batch_size=given.max_batch_size or DEFAULT_BATCH_SIZE,
        max_input_len=input_len,
        max_seq_len=chosen,
        max_num_tokens=tokens,
    )


def _because(family: Family) -> str:
    return f" ({family.notes[0]})" if family.engine and family.engine.max_seq_len else ""


def _can_chunk(variant: Variant) -> bool:
    has_tree = variant.speculative is not None and variant.speculative.mode in ("medusa", "eagle")
    is_paged = variant.kv_cache == "auto" or (variant.kv_cache, variant.quantization) == (
        "fp8",
        "fp8",
    )
    return is_paged and not has_tree


def _check_experts(options: EngineOptions) -> None:
    if options.ep_size > 1 and options.is_calibrated:
        raise ChoiceError(
            "quantize.py cannot put experts on GPUs of their own: leave ep_size out, or choose "
            "fp16, bf16, int8_wo or int4_wo with kv_cache auto"
        )


def _lora(given: Lora) -> Lora:
    """With TensorRT-LLM's names of the modules."""
    modules = dict.fromkeys(HF_LORA_MODULES.get(name, name) for name in given.target_modules)
    unknown = [name for name in modules if name not in LORA_MODULES]
    if unknown:
        raise ChoiceError(
            f"lora.target_modules has {', '.join(unknown)}: choose among {', '.join(LORA_MODULES)}"
        )
    if not modules and not given.adapters:
        raise ChoiceError(
            "an engine for LoRA must know its modules: give lora.target_modules or an adapter"
        )
    return replace(given, target_modules=tuple(modules))


def _check_drafting(
    family: Family,
    flow: EngineFlow,
    options: EngineOptions,
    drafting: Drafting,
    *,
    has_windows: bool,
) -> None:
    mode = drafting.mode
    if mode not in flow.speculative:
        able = ", ".join(sorted(flow.speculative))
        raise ChoiceError(f"upstream has no {mode} engines of {family.name}: choose {able}")
    if mode != "lookahead" and drafting.draft_model is None:
        raise ChoiceError(f"speculative decoding by {mode} needs speculative.draft_model")
    if options.pp_size > 1:
        raise ChoiceError(
            f"speculative decoding by {mode} does not go with pipeline parallelism: set pp_size "
            f"to 1 and tp_size to {options.world_size}"
        )
    if drafting.max_draft_len >= options.limits.max_seq_len - 1:
        raise ChoiceError(
            f"{mode} guesses {drafting.max_draft_len} tokens at once, and max_seq_len is "
            f"{options.limits.max_seq_len}: no prompt would fit beside them; guess fewer"
        )
    if mode == "draft_target":
        _check_draft_model(options, drafting.draft_model or "", has_windows=has_windows)
    if not drafting.has_own_script:
        return
    if options.is_calibrated or options.quantization not in ("fp16", "bf16"):
        raise ChoiceError(
            f"{mode} engines are built in fp16 or bf16 with kv_cache auto only: choose these, or "
            "draft_target or lookahead"
        )
    if len(drafting.tree) > drafting.max_draft_len:
        raise ChoiceError(
            f"speculative.choices has {len(drafting.tree)} guesses, max_draft_len is "
            f"{drafting.max_draft_len}: raise it or cut the tree"
        )
    if mode == "medusa" and drafting.depth > drafting.num_heads:
        raise ChoiceError(
            f"speculative.choices guesses {drafting.depth} tokens ahead, with num_heads "
            f"{drafting.num_heads}: give at least as many heads"
        )


def _check_draft_model(options: EngineOptions, name: str, *, has_windows: bool) -> None:
    """The runtime's rule: "KV cache block reuse must be enabled for speculative decoding target
    model" (cpp/tensorrt_llm/batch_manager/trtGptModelInflightBatching.cpp)."""
    if not is_safe_name(name):
        raise ChoiceError(
            f"speculative.draft_model is {name}: build the small model first, and give the name "
            "that it is served under"
        )
    if not options.has_paged_context:
        raise ChoiceError(
            f"draft_target needs shared prefixes, which engines with kv_cache {options.kv_cache} "
            "cannot: set kv_cache to auto"
        )
    if has_windows:
        raise ChoiceError(
            "draft_target needs shared prefixes, which engines with sliding windows cannot: choose "
            "lookahead"
        )
