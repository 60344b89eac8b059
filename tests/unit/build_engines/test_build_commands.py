"""The commands of the six promised models, flag by flag, and that no tool lacks a flag of ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePath
from typing import Any

import pytest

from build_engines.checkpoints.architecture import Architecture
from build_engines.errors import ChoiceError
from build_engines.families.family import ENGINE_QUANTIZATIONS
from build_engines.families.table import FAMILIES, family_of
from build_engines.spec import Spec, load_spec
from build_engines.tensorrt.commands import Places, build_command, checkpoint_command
from build_engines.tensorrt.engine_options import EngineOptions, engine_options
from build_engines.variants import Lora, Speculative, Variant
from tests.fakes.trtllm.flags import TOOLS, WrongArguments, parse

PLACES = Places(
    examples=PurePath("/ex"),
    checkpoint=PurePath("/hf"),
    calibration=PurePath("/texts"),
    adapters=(PurePath("/lora"),),
    draft=PurePath("/draft"),
)

QWEN = "python3 /ex/models/core/qwen/convert_checkpoint.py --model_dir /hf --output_dir /out"
LLAMA = "python3 /ex/models/core/llama/convert_checkpoint.py --model_dir /hf --output_dir /out"
GEMMA = (
    "python3 /ex/models/core/gemma/convert_checkpoint.py --ckpt-type hf --model-dir /hf "
    "--output-model-dir /out"
)
GLM = (
    "python3 /ex/models/core/glm-4-9b/convert_checkpoint.py --model_dir /hf "
    "--chatglm_version chatglm3 --output_dir /out"
)
QUANTIZE = "python3 /ex/quantization/quantize.py --model_dir /hf --output_dir /out"
TEXTS = "--calib_dataset /texts --calib_size 512"
AWQ = "--awq_block_size 128 --calib_dataset /texts --calib_size 32"

# model -> variant -> what makes the checkpoint
CHECKPOINT = {
    **{
        model: {
            "fp16": f"{script} --dtype float16 --tp_size 1 --workers 1",
            "bf16": f"{script} --dtype bfloat16 --tp_size 1 --workers 1",
            "fp8": f"{QUANTIZE} --dtype float16 --qformat fp8 --kv_cache_dtype fp8 {TEXTS} "
            "--tp_size 1",
            "int8_wo": f"{script} --dtype float16 --tp_size 1 --use_weight_only "
            "--weight_only_precision int8 --workers 1",
            "int4_wo": f"{script} --dtype float16 --tp_size 1 --use_weight_only "
            "--weight_only_precision int4 --workers 1",
            "int4_awq": f"{QUANTIZE} --dtype float16 --qformat int4_awq {AWQ} --tp_size 1",
            "int8_sq": f"{QUANTIZE} --dtype float16 --qformat int8_sq {TEXTS} --tp_size 1",
            "w4a8_awq": f"{QUANTIZE} --dtype float16 --qformat w4a8_awq {AWQ} --tp_size 1",
        }
        for model, script in (
            ("qwen-7b-chat", QWEN),
            ("qwen-14b-chat", QWEN),
            ("llama-2-7b-chat", LLAMA),
        )
    },
    **{
        model: {
            "bf16": f"{GEMMA} --dtype bfloat16 --world-size 1",
            "fp16": f"{GEMMA} --dtype float16 --world-size 1",
            "fp8": f"{QUANTIZE} --dtype bfloat16 --qformat fp8 --kv_cache_dtype fp8 {TEXTS} "
            "--tp_size 1",
            "int8_wo": f"{GEMMA} --dtype bfloat16 --world-size 1 --use_weight_only "
            "--weight_only_precision int8",
            "int4_wo": f"{GEMMA} --dtype bfloat16 --world-size 1 --use_weight_only "
            "--weight_only_precision int4",
            "int4_awq": f"{QUANTIZE} --dtype bfloat16 --qformat int4_awq {AWQ} --tp_size 1",
            "int8_sq": f"{QUANTIZE} --dtype float16 --qformat int8_sq {TEXTS} --tp_size 1",
            "w4a8_awq": f"{QUANTIZE} --dtype bfloat16 --qformat w4a8_awq {AWQ} --tp_size 1",
        }
        for model in ("gemma-7b", "gemma-2b")
    },
    "chatglm3-6b": {
        "fp16": f"{GLM} --dtype float16 --tp_size 1 --workers 1",
        "bf16": f"{GLM} --dtype bfloat16 --tp_size 1 --workers 1",
        "fp8": f"{QUANTIZE} --dtype float16 --qformat fp8 {TEXTS} --tp_size 1",
        "int8_wo": f"{GLM} --dtype float16 --tp_size 1 --use_weight_only "
        "--weight_only_precision int8 --workers 1",
        "int4_wo": f"{GLM} --dtype float16 --tp_size 1 --use_weight_only "
        "--weight_only_precision int4 --workers 1",
        "int4_awq": f"{QUANTIZE} --dtype float16 --qformat int4_awq {AWQ} --tp_size 1",
        "int8_sq": f"{QUANTIZE} --dtype float16 --qformat int8_sq {TEXTS} --tp_size 1",
    },
}
CHECKPOINT["llama-2-7b-chat"]["nvfp4"] = (
    f"{QUANTIZE} --dtype float16 --qformat nvfp4 {TEXTS} --tp_size 1"
)
# model -> prompt and output, tokens
LONGEST = {
    "qwen-7b-chat": 8192,
    "qwen-14b-chat": 2048,
    "gemma-7b": 8192,
    "gemma-2b": 8192,
    "llama-2-7b-chat": 4096,
    "chatglm3-6b": 8192,
}
NO_GEMM_PLUGIN = {"fp8", "nvfp4"}
CASES = [(model, variant) for model, commands in CHECKPOINT.items() for variant in commands]


def build_line(longest: int, gemm_plugin: str) -> str:
    return (
        f"trtllm-build --checkpoint_dir /ckpt --output_dir /engine {gemm_plugin}"
        f"--max_batch_size 64 --max_input_len {longest - 1} --max_seq_len {longest} "
        "--max_num_tokens 8192 --max_beam_width 1 --kv_cache_type paged "
        "--use_paged_context_fmha enable --input_timing_cache model.cache "
        "--output_timing_cache model.cache --workers 1"
    )


def options_of(spec: Spec, variant: Variant) -> EngineOptions:
    assert spec.architecture is not None
    family = FAMILIES[spec.family or ""]
    return engine_options(family, variant, spec.architecture, spec.max_seq_len)


def commands_of(
    spec: Spec, options: EngineOptions, places: Places = PLACES
) -> tuple[list[str], list[str]]:
    flow = FAMILIES[spec.family or ""].engine
    assert flow is not None
    made = checkpoint_command(flow, options, places, PurePath("/out"))
    built = build_command(options, places, PurePath("/ckpt"), PurePath("/engine"))
    for command in (made, built):
        check_flags(command)
    return list(made), list(built)


def check_flags(command: tuple[str, ...]) -> None:
    """Raises WrongArguments for a flag that the tool does not have."""
    is_script = command[0] == "python3"
    tool = command[1].removeprefix("/ex/") if is_script else command[0]
    parse(tool, list(command[2 if is_script else 1 :]))


@pytest.mark.parametrize(("model", "variant"), CASES)
def test_the_commands_of_the_six_models(model: str, variant: str) -> None:
    spec = load_spec(model)
    made, built = commands_of(spec, options_of(spec, spec.variant(variant)))
    assert made == CHECKPOINT[model][variant].split()
    plugin = "" if variant in NO_GEMM_PLUGIN else "--gemm_plugin auto "
    assert built == build_line(LONGEST[model], plugin).split()


@pytest.mark.parametrize("model", CHECKPOINT)
def test_the_table_has_every_engine_variant_of_a_model(model: str) -> None:
    spec = load_spec(model)
    engines = {name for name in spec.variants if spec.variant(name).kind == "tensorrt_llm"}
    assert engines == CHECKPOINT[model].keys()
    family = FAMILIES[spec.family or ""]
    assert engines == set(family.quantizations("tensorrt_llm"))


def changed(model: str, variant: str, **changes: Any) -> tuple[Spec, EngineOptions]:
    spec = load_spec(model)
    return spec, options_of(spec, replace(spec.variant(variant), **changes))


def flags_of(command: list[str]) -> dict[str, list[str]]:
    return parse("trtllm-build", command[1:])


def test_several_gpus() -> None:
    made, built = commands_of(*changed("llama-2-7b-chat", "fp16", tp_size=2, pp_size=2))
    assert " ".join(made).endswith("--tp_size 2 --pp_size 2 --workers 4")
    assert flags_of(built)["--workers"] == ["4"]
    made, built = commands_of(*changed("gemma-7b", "bf16", tp_size=4))
    assert " ".join(made).endswith("--world-size 4")
    made, built = commands_of(*changed("llama-2-7b-chat", "int8_sq", tp_size=2, pp_size=2))
    assert " ".join(made).endswith("--tp_size 2 --pp_size 2")


def test_experts_on_gpus_of_their_own() -> None:
    mixtral = Architecture.from_config(
        {
            "architectures": ["MixtralForCausalLM"],
            "model_type": "mixtral",
            "num_hidden_layers": 32,
            "hidden_size": 4096,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "intermediate_size": 14336,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "vocab_size": 32000,
            "max_position_embeddings": 32768,
        }
    )
    variant = Variant(name="v", kind="tensorrt_llm", quantization="fp16", tp_size=8, ep_size=4)
    options = engine_options(FAMILIES["mixtral"], variant, mixtral, None)
    spec = replace(load_spec("llama-2-7b-chat"), family="mixtral")
    made, _ = commands_of(spec, options)
    assert " ".join(made).endswith("--tp_size 8 --moe_tp_size 2 --moe_ep_size 4 --workers 8")


def test_adapters() -> None:
    lora = Lora(max_rank=32, target_modules=("attn_q", "attn_v"), adapters={"a": "/lora"})
    _, built = commands_of(*changed("llama-2-7b-chat", "fp16", lora=lora))
    flags = flags_of(built)
    assert flags["--lora_plugin"] == ["auto"]
    assert flags["--lora_dir"] == ["/lora"]
    assert flags["--max_lora_rank"] == ["32"]
    assert flags["--lora_target_modules"] == ["attn_q", "attn_v"]


@pytest.mark.parametrize(
    ("speculative", "checkpoint", "build"),
    [
        (
            Speculative(mode="draft_target", draft_model="small", max_draft_len=5),
            "--dtype float16 --tp_size 1 --workers 1",
            "--speculative_decoding_mode draft_tokens_external --max_draft_len 5",
        ),
        (
            Speculative(mode="lookahead", window_size=4, ngram_size=5, verification_set_size=3),
            "--dtype float16 --tp_size 1 --workers 1",
            "--speculative_decoding_mode lookahead_decoding --max_draft_len 27",
        ),
        (
            Speculative(mode="medusa", draft_model="/draft"),
            "--tp_size 1 --workers 1 --medusa_model_dir /draft --num_medusa_heads 4",
            "--speculative_decoding_mode medusa",
        ),
        (
            Speculative(mode="eagle", draft_model="/draft"),
            "--eagle_model_dir /draft --max_draft_len 63 --num_eagle_layers 4",
            "--speculative_decoding_mode eagle",
        ),
    ],
    ids=lambda value: value.mode if isinstance(value, Speculative) else "",
)
def test_guessing_ahead(speculative: Speculative, checkpoint: str, build: str) -> None:
    made, built = commands_of(*changed("llama-2-7b-chat", "fp16", speculative=speculative))
    assert " ".join(made).endswith(checkpoint)
    assert " ".join(built).endswith(build)


@pytest.mark.parametrize(
    ("variant", "kv_cache", "paged"),
    [
        ("fp16", "auto", "enable"),
        ("fp16", "int8", "disable"),
        ("int8_sq", "int8", "disable"),
        ("fp16", "fp8", "disable"),
        ("fp8", "fp8", "enable"),
    ],
)
def test_prefixes_are_shared_where_the_kernels_can(variant: str, kv_cache: str, paged: str) -> None:
    made, built = commands_of(*changed("llama-2-7b-chat", variant, kv_cache=kv_cache))
    assert flags_of(built)["--use_paged_context_fmha"] == [paged]
    assert ("--kv_cache_dtype" in made) == (kv_cache != "auto")


def test_a_prompt_that_cannot_be_cut_goes_through_in_one_step() -> None:
    spec = load_spec("gemma-2b")
    variant = replace(spec.variant("bf16"), kv_cache="int8", max_seq_len=8192)
    limits = options_of(spec, variant).limits
    assert limits.max_num_tokens >= limits.max_input_len


@pytest.mark.parametrize("quantization", ENGINE_QUANTIZATIONS)
@pytest.mark.parametrize("name", [name for name, found in FAMILIES.items() if found.engine])
def test_no_tool_lacks_a_flag_that_a_family_is_given(name: str, quantization: str) -> None:
    family = FAMILIES[name]
    arch = Architecture(
        hf_architecture=family.architectures[0],
        model_type=name,
        num_layers=4,
        hidden_size=1024,
        num_heads=8,
        num_kv_heads=4,
        head_size=128,
        intermediate_size=2048,
        vocab_size=max(1000, family.vocab_sizes[0]),
        max_position_embeddings=2048,
        num_experts=8 if family.engine and family.engine.has_ep else 0,
        num_experts_per_token=2,
        moe_intermediate_size=1024,
    )
    assert family_of(arch) == family
    flow = family.engine
    assert flow is not None
    spread = [(1, 1, 1), (4, 1, 1), (2, 2, 1), (4, 1, 4)]
    accepted = 0
    for kv_cache in ("auto", "int8", "fp8"):
        for tp, pp, ep in spread:
            variant = Variant(
                name="v", kind="tensorrt_llm", quantization=quantization,
                kv_cache=kv_cache, tp_size=tp, pp_size=pp, ep_size=ep,
            )  # fmt: skip
            try:
                options = engine_options(family, variant, arch, None)
            except ChoiceError:
                continue
            accepted += 1
            check_flags(checkpoint_command(flow, options, PLACES, PurePath("/out")))
            check_flags(build_command(options, PLACES, PurePath("/ckpt"), PurePath("/engine")))
    assert (accepted > 0) == (quantization in family.quantizations("tensorrt_llm"))


def test_the_table_of_flags_refuses_what_is_not_there() -> None:
    for tool in TOOLS:
        with pytest.raises(WrongArguments, match="--no_such_flag"):
            parse(tool, ["--no_such_flag"])
