"""What `inflight build` makes for TensorRT-LLM's PyTorch backend: files, options, refusals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from build_engines.artefacts.artefact import Artefact
from build_engines.errors import BuildError, ChoiceError, SourceError, ToolError
from build_engines.gpu.gpus import GPUS
from build_engines.llm_api.recipe import LlmApiRecipe
from build_engines.pipeline import build
from build_engines.spec import PathSource, Spec, TokenOptions
from build_engines.variants import Lora, Speculative, VariantLimits, VariantOptions
from tests.fakes import modelopt
from tests.fakes.trtllm.install import install_tools
from tests.unit.build_engines.tensorrt_fakes import (
    ROOMY,
    verify_nothing,
    write_checkpoint,
    write_texts,
    write_tiny_tokenizer,
)

TOKENS = TokenOptions(bos_id=1, eos_ids=[2], pad_id=0)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT-LLM's machine: its tools, ModelOpt, and texts to calibrate with."""
    installed = install_tools(tmp_path / "tools")
    modelopt.install(installed.packages)
    for name, value in installed.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("INFLIGHT_TRTLLM_EXAMPLES", str(installed.examples))
    monkeypatch.setenv("INFLIGHT_CALIBRATION_DATA", str(write_texts(tmp_path / "texts")))


def make(
    home: Path, checkpoint: Path, variant: str, options: VariantOptions | None = None, **spec: Any
) -> Artefact:
    wanted = options or VariantOptions(kind="llm_api", quantization=variant)
    recipe = LlmApiRecipe(
        gpus=lambda: [GPUS["H100"]], tokenizing=write_tiny_tokenizer, verifying=verify_nothing
    )
    made = Spec(
        name="tiny",
        source=PathSource(path=str(checkpoint)),
        tokens=TOKENS,
        limits=VariantLimits(max_batch_size=8),
        variants={variant: wanted},
        **spec,
    )
    return build(made, variant, home, recipes={"llm_api": recipe}, machine=ROOMY)


def options_of(artefact: Artefact) -> Mapping[str, Any]:
    options: dict[str, Any] = json.loads((artefact.path / "llm_options.json").read_text())
    return options


def test_a_checkpoint_is_served_as_it_is_with_options_of_ours(
    tmp_path: Path, checkpoint: Path
) -> None:
    (checkpoint / "modeling_tiny.py").write_text("raise SystemExit")
    artefact = make(tmp_path / "home", checkpoint, "bf16")
    assert sorted(artefact.manifest.files) == [
        "checkpoint/config.json",
        "checkpoint/model.safetensors",
        "llm_options.json",
        "tokenizer/generation_config.json",
        "tokenizer/tokenizer.json",
    ]
    assert options_of(artefact) == {
        "backend": "pytorch",
        "dtype": "bfloat16",
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "max_batch_size": 8,
        "max_input_len": 255,
        "max_seq_len": 256,
        "max_num_tokens": 8192,
        "enable_chunked_prefill": True,
        "enable_iter_perf_stats": True,
        "guided_decoding_backend": "xgrammar",
        "kv_cache_config": {
            "enable_block_reuse": True,
            "free_gpu_memory_fraction": 0.9,
            "dtype": "auto",
        },
    }
    manifest = artefact.manifest
    assert (manifest.kind, manifest.format) == ("llm_api", "huggingface")
    assert (manifest.limits.max_seq_len, manifest.limits.vocab_size) == (256, 64)
    assert manifest.engine is not None
    assert (manifest.engine.max_batch_size, manifest.engine.world_size) == (8, 1)


@pytest.mark.parametrize(
    ("variant", "algorithm"),
    [("fp8", "FP8"), ("nvfp4", "NVFP4"), ("int4_awq", "W4A16_AWQ"), ("w4a8_awq", "W4A8_AWQ")],
)
def test_modelopt_quantizes_what_is_not_quantized(
    tmp_path: Path, checkpoint: Path, tools: None, variant: str, algorithm: str
) -> None:
    options = VariantOptions(kind="llm_api", quantization=variant, kv_cache="fp8")
    gpus = {"nvfp4": "B200"}
    recipe_home = tmp_path / "home"
    made = Spec(
        name="tiny",
        source=PathSource(path=str(checkpoint)),
        tokens=TOKENS,
        variants={variant: options},
    )
    recipe = LlmApiRecipe(
        gpus=lambda: [GPUS[gpus.get(variant, "H100")]],
        tokenizing=write_tiny_tokenizer,
        verifying=verify_nothing,
    )
    artefact = build(made, variant, recipe_home, recipes={"llm_api": recipe}, machine=ROOMY)
    said = json.loads((artefact.path / "checkpoint" / "hf_quant_config.json").read_text())
    assert said["quantization"]["quant_algo"] == algorithm
    assert said["quantization"]["kv_cache_quant_algo"] == "FP8"
    assert options_of(artefact)["kv_cache_config"]["dtype"] == "fp8"
    assert options_of(artefact)["dtype"] == "auto"
    log = (recipe_home / "builds" / "tiny" / variant / "build.log").read_text()
    assert "calibrated 1/1" in log


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "fp8"),
    ],
)
def test_what_is_quantized_already_is_left_so(
    tmp_path: Path, config: dict[str, Any], found: str
) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", {"quantization_config": config})
    artefact = make(tmp_path / "home", checkpoint, found)
    assert "checkpoint/hf_quant_config.json" not in artefact.manifest.files
    with pytest.raises(ChoiceError, match=f"quantized as {found} already"):
        make(tmp_path / "home", checkpoint, "bf16")


def test_a_format_that_the_backend_does_not_read_is_told(tmp_path: Path) -> None:
    config = {"quantization_config": {"quant_method": "bitsandbytes"}}
    checkpoint = write_checkpoint(tmp_path / "checkpoint", config)
    with pytest.raises(SourceError, match="quantized as bitsandbytes"):
        make(tmp_path / "home", checkpoint, "bf16")


def test_quantizing_needs_texts_and_a_gpu(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ChoiceError, match="INFLIGHT_CALIBRATION_DATA"):
        make(tmp_path / "home", checkpoint, "fp8")
    monkeypatch.setenv("INFLIGHT_CALIBRATION_DATA", str(write_texts(tmp_path / "texts")))
    recipe = LlmApiRecipe(gpus=list, tokenizing=write_tiny_tokenizer, verifying=verify_nothing)
    spec = Spec(
        name="tiny",
        source=PathSource(path=str(checkpoint)),
        tokens=TOKENS,
        variants={"fp8": VariantOptions(kind="llm_api")},
    )
    with pytest.raises(ToolError, match="no NVIDIA GPU here"):
        build(spec, "fp8", tmp_path / "home", recipes={"llm_api": recipe}, machine=ROOMY)


def test_parallelism_draft_and_adapters_are_options(tmp_path: Path, checkpoint: Path) -> None:
    draft = write_checkpoint(tmp_path / "eagle3")
    options = VariantOptions(
        kind="llm_api",
        quantization="bf16",
        tp_size=2,
        pp_size=2,
        speculative=Speculative(mode="eagle", draft_model=str(draft), max_draft_len=4),
        sampler_type="TorchSampler",
    )
    lora = Lora(max_rank=8, target_modules=("q_proj", "attn_v"), adapters={})
    artefact = make(tmp_path / "home", checkpoint, "big", options, lora=lora)
    said = options_of(artefact)
    assert (said["tensor_parallel_size"], said["pipeline_parallel_size"]) == (2, 2)
    assert said["sampler_type"] == "TorchSampler"
    assert said["speculative_config"] == {
        "decoding_type": "Eagle",
        "max_draft_len": 4,
        "speculative_model_dir": "draft",
    }
    assert said["lora_config"] == {
        "lora_target_modules": ["attn_q", "attn_v"],
        "max_lora_rank": 8,
        "max_loras": 1,
        "max_cpu_loras": 1,
    }
    assert "draft/config.json" in artefact.manifest.files
    assert artefact.manifest.engine is not None
    assert artefact.manifest.engine.world_size == 4
    assert artefact.manifest.engine.max_lora_rank == 8


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (VariantOptions(quantization="int8_wo"), "cannot be built as int8_wo for llm_api"),
        (VariantOptions(quantization="bf16", kv_cache="int8"), "has no int8 KV cache"),
        (VariantOptions(quantization="bf16", max_seq_len=512), "the model is made for 256"),
        (
            VariantOptions(quantization="bf16", limits=VariantLimits(max_input_len=256)),
            "no token would fit behind it",
        ),
        (
            VariantOptions(quantization="bf16", speculative=Speculative(mode="medusa")),
            "has no medusa: choose draft_target or eagle",
        ),
        (
            VariantOptions(quantization="bf16", speculative=Speculative(mode="eagle")),
            "speculative.draft_model is not given",
        ),
        (
            VariantOptions(
                quantization="bf16",
                speculative=Speculative(mode="eagle", draft_model="d", choices=[[0]]),
            ),
            "leave speculative.choices out",
        ),
        (
            VariantOptions(
                quantization="bf16",
                speculative=Speculative(mode="eagle", draft_model="d"),
                sampler_type="TRTLLMSampler",
            ),
            "TRTLLMSampler cannot do speculative decoding: leave sampler_type out",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_what_would_work(
    tmp_path: Path, checkpoint: Path, options: VariantOptions, reason: str
) -> None:
    wanted = VariantOptions(
        kind="llm_api",
        quantization=options.quantization,
        sampler_type=options.sampler_type,
        kv_cache=options.kv_cache,
        max_seq_len=options.max_seq_len,
        limits=options.limits,
        speculative=options.speculative,
    )
    with pytest.raises(BuildError, match=reason):
        make(tmp_path / "home", checkpoint, "odd", wanted)


@pytest.mark.parametrize(
    ("modules", "reason"),
    [((), "are not known"), (("rotary",), "no LoRA for rotary")],
)
def test_modules_of_adapters_must_be_known(
    tmp_path: Path, checkpoint: Path, modules: tuple[str, ...], reason: str
) -> None:
    lora = Lora(max_rank=8, target_modules=modules, adapters={})
    with pytest.raises(ChoiceError, match=reason):
        make(tmp_path / "home", checkpoint, "bf16", lora=lora)
