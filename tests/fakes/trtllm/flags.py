"""The flags that TensorRT-LLM 1.2.1's tools have, and what each takes.

From the argument parsers of examples/**/convert_checkpoint.py, examples/quantization/quantize.py,
tensorrt_llm/commands/build.py and tensorrt_llm/plugin/plugin.py. A flag that is not here is not
the tool's.
"""

from __future__ import annotations

from dataclasses import dataclass


class WrongArguments(Exception):
    """What argparse would refuse."""


@dataclass(frozen=True)
class Flag:
    """`takes`: "" nothing, "1" one value, "+" one or more. `choices` None: any `type`."""

    takes: str = "1"
    type: type = str
    choices: tuple[str, ...] | None = None
    required: bool = False


SWITCH = Flag(takes="")
TEXT = Flag()
NUMBER = Flag(type=int)
REAL = Flag(type=float)
REQUIRED = Flag(required=True)
ON_OFF = Flag(choices=("enable", "disable"))


def one_of(*choices: str) -> Flag:
    return Flag(choices=choices)


_DTYPES = one_of("auto", "float16", "bfloat16", "float32")
_EMBEDDING = {"--use_parallel_embedding": SWITCH, "--embedding_sharding_dim": one_of("0", "1")}
_SMOOTH = {
    "--smoothquant": REAL,
    "--per_channel": SWITCH,
    "--per_token": SWITCH,
    "--int8_kv_cache": SWITCH,
    "--calib_dataset": TEXT,
}
_EXPERTS = {"--moe_tp_size": NUMBER, "--moe_ep_size": NUMBER}
_COMMON = {
    "--model_dir": REQUIRED,
    "--output_dir": TEXT,
    "--tp_size": NUMBER,
    "--pp_size": NUMBER,
    "--dtype": _DTYPES,
    "--use_weight_only": SWITCH,
    "--workers": NUMBER,
}
QWEN = {
    **_COMMON, **_SMOOTH, **_EMBEDDING, **_EXPERTS,
    "--cp_size": NUMBER,
    "--disable_weight_only_quant_plugin": SWITCH,
    "--weight_only_precision": one_of("int8", "int4", "int4_gptq", "int8_gptq"),
    "--per_group": SWITCH,
    "--group_size": NUMBER,
    "--load_model_on_cpu": SWITCH,
}  # fmt: skip
LLAMA = {
    **QWEN,
    "--weight_only_precision": one_of("int8", "int4", "int8_gptq", "int4_gptq", "int4_awq"),
    "--meta_ckpt_dir": TEXT,
    "--calib_size": NUMBER,
    "--calib_max_seq_length": NUMBER,
    "--fp8_kv_cache": SWITCH,
    "--quant_ckpt_path": TEXT,
    "--use_fp8": SWITCH,
    "--use_nvfp4": SWITCH,
    "--use_fp8_rowwise": SWITCH,
    "--use_qserve": SWITCH,
    "--load_by_shard": SWITCH,
    "--save_config_only": SWITCH,
    "--log_level": TEXT,
}
GEMMA = {
    "--ckpt-type": Flag(choices=("jax", "keras", "torch", "hf"), required=True),
    "--model-dir": REQUIRED,
    "--output-model-dir": REQUIRED,
    "--world-size": NUMBER,
    "--dtype": _DTYPES,
    "--use_weight_only": SWITCH,
    "--weight_only_precision": one_of("int8", "int4", "w4a8_awq", "w4a16_awq"),
    "--use-int8-weight-only-embedding": SWITCH,
    "--enable_fp8": SWITCH,
    "--fp8_kv_cache": SWITCH,
    "--quant_ckpt_path": TEXT,
    "--use_smooth_quant": SWITCH,
    "--tokenizer_dir": TEXT,
    "--load_model_on_cpu": SWITCH,
    **_SMOOTH,
}
GLM = {
    **_COMMON, **_SMOOTH, **_EMBEDDING,
    "--cp_size": NUMBER,
    "--chatglm_version": one_of("glm4", "chatglm3", "chatglm2", "chatglm", "glm"),
    "--logits_dtype": one_of("float16", "float32"),
    "--weight_only_precision": one_of("int8", "int4"),
    "--log_level": TEXT,
    "--device": one_of("cuda", "cpu"),
    "--load_model_on_cpu": SWITCH,
}  # fmt: skip
PHI = {**_COMMON, **_EXPERTS, "--weight_only_precision": one_of("int8", "int4")}
_OWN_SCRIPT = {
    **_COMMON, **_SMOOTH, **_EMBEDDING,
    "--dtype": one_of("float32", "bfloat16", "float16"),
    "--weight_only_precision": one_of("int8", "int4", "int4_gptq"),
    "--load_by_shard": SWITCH,
}  # fmt: skip
EAGLE = {
    **_OWN_SCRIPT,
    "--eagle_model_dir": TEXT,
    "--max_draft_len": NUMBER,
    "--num_eagle_layers": NUMBER,
}
MEDUSA = {
    **_OWN_SCRIPT,
    "--medusa_model_dir": TEXT,
    "--num_medusa_heads": NUMBER,
    "--num_medusa_layers": NUMBER,
}
QUANTIZE = {
    "--model_dir": REQUIRED,
    "--output_dir": TEXT,
    "--device": one_of("cuda", "cpu"),
    "--device_map": one_of("auto", "sequential", "cpu", "gpu"),
    "--calib_dataset": TEXT,
    "--dtype": _DTYPES,
    "--qformat": one_of(
        "nvfp4", "fp8", "fp8_pc_pt", "int8_sq", "int4_awq", "w4a8_awq", "int8_wo", "int4_wo",
        "full_prec",
    ),
    "--seed": NUMBER,
    "--tokenizer_max_seq_length": NUMBER,
    "--batch_size": NUMBER,
    "--calib_size": NUMBER,
    "--calib_max_seq_length": NUMBER,
    "--tp_size": NUMBER,
    "--pp_size": NUMBER,
    "--cp_size": NUMBER,
    "--awq_block_size": NUMBER,
    "--kv_cache_dtype": one_of("int8", "fp8"),
    "--quantize_lm_head": SWITCH,
    "--autoq_format": TEXT,
    "--auto_quantize_bits": REAL,
}  # fmt: skip
_PLUGIN_TYPES = ("auto", "float16", "float32", "bfloat16", "int32", "disable")
BUILD = {
    "--checkpoint_dir": REQUIRED,
    "--model_config": TEXT,
    "--build_config": TEXT,
    "--output_dir": TEXT,
    "--max_batch_size": NUMBER,
    "--max_input_len": NUMBER,
    "--max_seq_len": NUMBER,
    "--max_beam_width": NUMBER,
    "--max_num_tokens": NUMBER,
    "--opt_num_tokens": NUMBER,
    "--max_prompt_embedding_table_size": NUMBER,
    "--kv_cache_type": one_of("continuous", "paged", "disabled"),
    "--input_timing_cache": TEXT,
    "--output_timing_cache": TEXT,
    "--workers": NUMBER,
    "--dry_run": SWITCH,
    "--fast_build": SWITCH,
    "--weight_streaming": SWITCH,
    "--weight_sparsity": SWITCH,
    "--strip_plan": SWITCH,
    "--log_level": TEXT,
    "--monitor_memory": SWITCH,
    "--logits_dtype": one_of("float16", "float32"),
    "--gather_context_logits": SWITCH,
    "--gather_all_token_logits": SWITCH,
    "--lora_dir": Flag(takes="+"),
    "--lora_ckpt_source": one_of("hf", "nemo"),
    "--lora_target_modules": Flag(
        takes="+",
        choices=(
            "attn_qkv", "attn_q", "attn_k", "attn_v", "attn_dense", "mlp_h_to_4h", "mlp_4h_to_h",
            "mlp_gate", "cross_attn_qkv", "cross_attn_q", "cross_attn_k", "cross_attn_v",
            "cross_attn_dense", "moe_h_to_4h", "moe_4h_to_h", "moe_gate", "moe_router",
            "mlp_router", "mlp_gate_up",
        ),
    ),
    "--max_lora_rank": NUMBER,
    "--speculative_decoding_mode": one_of(
        "draft_tokens_external", "lookahead_decoding", "medusa", "explicit_draft_tokens", "eagle"
    ),
    "--max_draft_len": NUMBER,
    "--gpt_attention_plugin": one_of(*_PLUGIN_TYPES),
    "--gemm_plugin": one_of(*_PLUGIN_TYPES, "fp8", "nvfp4"),
    "--lora_plugin": one_of(*_PLUGIN_TYPES),
    "--moe_plugin": one_of(*_PLUGIN_TYPES),
    "--nccl_plugin": one_of(*_PLUGIN_TYPES),
    "--context_fmha": ON_OFF,
    "--remove_input_padding": ON_OFF,
    "--use_paged_context_fmha": ON_OFF,
    "--use_fp8_context_fmha": ON_OFF,
    "--multiple_profiles": ON_OFF,
    "--reduce_fusion": ON_OFF,
    "--use_fused_mlp": ON_OFF,
    "--tokens_per_block": NUMBER,
}  # fmt: skip
TOOLS = {
    "models/core/llama/convert_checkpoint.py": LLAMA,
    "models/core/qwen/convert_checkpoint.py": QWEN,
    "models/core/gemma/convert_checkpoint.py": GEMMA,
    "models/core/glm-4-9b/convert_checkpoint.py": GLM,
    "models/core/phi/convert_checkpoint.py": PHI,
    "medusa/convert_checkpoint.py": MEDUSA,
    "eagle/convert_checkpoint.py": EAGLE,
    "quantization/quantize.py": QUANTIZE,
    "trtllm-build": BUILD,
}


def parse(tool: str, arguments: list[str]) -> dict[str, list[str]]:
    """Flag -> its values. Raises WrongArguments as argparse would end."""
    flags, found = TOOLS[tool], dict[str, list[str]]()
    current = None
    for word in arguments:
        if word.startswith("--"):
            if word not in flags:
                raise WrongArguments(f"unrecognized arguments: {word}")
            if word in found:
                raise WrongArguments(f"{word} is given twice")
            current, found[word] = word, []
        elif current is None:
            raise WrongArguments(f"unrecognized arguments: {word}")
        else:
            found[current].append(word)
    for name, values in found.items():
        _check(name, flags[name], values)
    for name, flag in flags.items():
        if flag.required and name not in found:
            raise WrongArguments(f"the following arguments are required: {name}")
    return found


def _check(name: str, flag: Flag, values: list[str]) -> None:
    counts = {"": len(values) == 0, "1": len(values) == 1, "+": len(values) > 0}
    if not counts[flag.takes]:
        raise WrongArguments(f"argument {name}: {len(values)} values")
    for value in values:
        if flag.choices is not None and value not in flag.choices:
            raise WrongArguments(f"argument {name}: invalid choice: {value!r}")
        try:
            flag.type(value)
        except ValueError:
            raise WrongArguments(f"argument {name}: invalid value: {value!r}") from None
