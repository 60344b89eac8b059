"""A tiny Llama, and a program that builds its TensorRT engine with the stand-in tools.

Run as `python -m tests.unit.build_engines.tensorrt_fakes HOME CHECKPOINT VARIANT [STAGE]`: in STAGE
it stops until the process is killed; `assemble` and `publish` are the steps behind the stages. The
tools are those on the PATH.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from build_engines import pipeline
from build_engines.artefacts import artefact
from build_engines.artefacts.artefact import Artefact, SpecialTokens
from build_engines.checkpoints.architecture import Architecture
from build_engines.checkpoints.source import fetch_stage
from build_engines.checkpoints.special_tokens import write_special_tokens
from build_engines.gpu.gpus import GPUS
from build_engines.machine import Machine
from build_engines.pipeline import build
from build_engines.recipe import BuildPlan, Describe, Order
from build_engines.spec import PathSource, Spec, TokenOptions
from build_engines.stages import Stage, StageContext
from build_engines.tensorrt.recipe import TensorRtRecipe
from build_engines.variants import Speculative, VariantLimits, VariantOptions

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 64,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
VARIANTS = {
    "fp16": VariantOptions(),
    "int4_awq": VariantOptions(),
    "two_gpus": VariantOptions(quantization="fp16", tp_size=2),
    "int8_kv": VariantOptions(quantization="fp16", kv_cache="int8"),
    "lookahead": VariantOptions(quantization="fp16", speculative=Speculative(mode="lookahead")),
}
ROOMY = Machine(free_bytes=lambda path: 1 << 40, available_memory_bytes=lambda: 1 << 40)


def write_checkpoint(folder: Path, config: Mapping[str, Any] | None = None) -> Path:
    """A Hugging Face folder whose files are links, as in the hub's cache."""
    blobs = folder.with_name(f"{folder.name}-blobs")
    for made in (folder, blobs):
        made.mkdir(parents=True)
    header = json.dumps({"w": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}}).encode()
    weights = len(header).to_bytes(8, "little") + header + bytes(8)
    files = {"config.json": json.dumps({**CONFIG, **(config or {})}).encode()}
    for name, content in {**files, "model.safetensors": weights}.items():
        (blobs / name).write_bytes(content)
        (folder / name).symlink_to(blobs / name)
    return folder


def write_texts(folder: Path) -> Path:
    """Calibration data."""
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"text": "What is the capital of France?"}\n')
    return folder


def tiny_spec(checkpoint: Path, **changes: Any) -> Spec:
    return Spec(
        name="tiny",
        default_variant="fp16",
        source=PathSource(path=str(checkpoint)),
        limits=VariantLimits(max_batch_size=8),
        variants=VARIANTS,
        **{"tokens": TokenOptions(bos_id=1, eos_ids=[2], pad_id=0), **changes},
    )


def with_numbers(spec: Spec) -> Spec:
    """The spec with the checkpoint's numbers, as one that is planned before it is fetched."""
    return replace(spec, architecture=Architecture.from_config(CONFIG))


def write_tiny_tokenizer(checkpoint: Path, directory: Path, **options: Any) -> None:
    from tokenizers import Tokenizer, models

    directory.mkdir(exist_ok=True)
    vocabulary = {f"t{index}": index for index in range(60)}
    Tokenizer(models.WordLevel(vocabulary, unk_token="t0")).save(str(directory / "tokenizer.json"))
    write_special_tokens(SpecialTokens(bos_id=1, eos_ids=[2], pad_id=0), directory)


def verify_nothing(order: Order, *, layout: Mapping[str, str], describe: Describe) -> Stage:
    """A verification that reads the engine back, and finds it good."""

    def run(out: Path, context: StageContext) -> None:
        describe(context.done)
        (out / "verified").write_text("yes")

    return Stage(name="verify", inputs={}, run=run)


@dataclass(frozen=True)
class StoppingRecipe:
    """A recipe that stops in a stage when all its work is done, or while it is put together."""

    stage: str
    inner: TensorRtRecipe

    def plan(self, order: Order) -> BuildPlan:
        plan = self.inner.plan(order)
        stages = tuple(
            stopping(stage) if stage.name == self.stage else stage for stage in plan.stages
        )
        describe = plan.describe

        def describe_and_stop(done: Mapping[str, Path]) -> Any:
            if self.stage == "assemble" and "verify" in done:
                stop("assemble")
            return describe(done)

        return replace(plan, stages=stages, describe=describe_and_stop)

    def sections(self, order: Order) -> list[Any]:
        return self.inner.sections(order)


def stopping(stage: Stage) -> Stage:
    """The stage, which never ends."""

    def run(out: Path, context: StageContext) -> None:
        stage.run(out, context)
        stop(stage.name)

    return replace(stage, run=run)


def stop(stage: str) -> None:
    with Path(os.environ["FAKE_TRTLLM_CALLS"]).open("a") as file:
        file.write(f"{os.getpid()} in the middle of {stage}\n")
    time.sleep(3600)


def recipe() -> TensorRtRecipe:
    return TensorRtRecipe(
        gpus=lambda: [GPUS["L4"]], tokenizing=write_tiny_tokenizer, verifying=verify_nothing
    )


def build_tiny_engine(home: Path, checkpoint: Path, variant: str, **changes: Any) -> Artefact:
    recipes = {"tensorrt_llm": recipe()}
    spec = tiny_spec(checkpoint, **changes)
    return build(spec, variant, home, recipes=recipes, machine=ROOMY)


def _main(home: Path, checkpoint: Path, variant: str, stage: str) -> None:
    if stage == "fetch":
        vars(pipeline)["fetch_stage"] = lambda *source: stopping(fetch_stage(*source))
    if stage == "publish":  # the version has its place, and nothing chooses it yet
        vars(artefact)["make_current"] = lambda *version: stop("publish")
    recipes = {"tensorrt_llm": StoppingRecipe(stage, recipe())}
    build(tiny_spec(checkpoint), variant, home, recipes=recipes, machine=ROOMY)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], "".join(sys.argv[4:]))
