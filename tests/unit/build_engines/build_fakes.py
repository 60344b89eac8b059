"""A spec and a recipe for builds that take no model, and two programs that run such builds.

`python -m tests.unit.build_engines.build_fakes HOME CALLS_FILE [STAGE]` builds the tiny model; in
mid-stage STAGE, after a file has been written, it stops until the process is killed.
`python -m tests.unit.build_engines.build_fakes fill ARGUMENTS` is `inflight build`, with a recipe
that writes until the disk is full.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from build_engines import cli, pipeline
from build_engines.artefacts.artefact import Artefact, Limits, SpecialTokens
from build_engines.checkpoints.source import fetch_stage, source_facts
from build_engines.machine import THIS_MACHINE, Machine
from build_engines.pipeline import build
from build_engines.progress import Progress, silent
from build_engines.recipe import BuildPlan, Order, Produced, Section
from build_engines.spec import PathSource, Spec
from build_engines.stages import Stage, StageContext
from build_engines.variants import VariantOptions

WEIGHTS = b"weights of the tiny model"
STAGES = ("tokenizer", "convert", "verify")
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "vocab_size": 3,
    "max_position_embeddings": 64,
    "eos_token_id": 2,
}


def write_checkpoint(folder: Path, config: Mapping[str, object] = CONFIG) -> Path:
    """A Hugging Face folder whose headers are in order, with one tensor; not written twice."""
    if not folder.exists():
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config))
        header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
        content = struct.pack("<Q", len(header)) + header + bytes(8)
        (folder / "model.safetensors").write_bytes(content)
    return folder


def tiny_spec(folder: Path) -> Spec:
    """A spec with variants q8_0 and f16 of the checkpoint in `folder`."""
    return Spec(
        name="tiny",
        default_variant="q8_0",
        source=PathSource(path=str(write_checkpoint(folder))),
        variants={name: VariantOptions() for name in ("f16", "q8_0")},
    )


@dataclass
class FakeRecipe:
    """Writes small files, the same ones each time. `runs` counts.

    `on_written` is called in the middle of each stage with its name and directory.
    """

    on_written: Callable[[str, Path], None] = lambda stage, out: None
    needed_bytes: int = 1000
    needed_memory_bytes: int = 1000
    inputs: dict[str, str] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    on_describe: Callable[[], None] = lambda: None  # while it is published

    def plan(self, order: Order) -> BuildPlan:
        return BuildPlan(
            stages=tuple(
                Stage(
                    name=name,
                    inputs={"variant": order.variant.name, **self.inputs},
                    run=lambda out, context, name=name: self._run(name, out, context),  # type: ignore[misc]
                    required_bytes=self.needed_bytes,
                    required_memory_bytes=self.needed_memory_bytes,
                    commands=(f"make-{name} --of {order.variant.name}",),
                )
                for name in STAGES
            ),
            layout={"convert": "", "tokenizer": "tokenizer"},
            describe=lambda done: self._describe(order, done),
        )

    def sections(self, order: Order) -> list[Section]:
        return [Section(title="Fit", rows=(("GPU", "batch"), ("none", "0")))]

    def _run(self, name: str, out: Path, context: StageContext) -> None:
        self.runs.append(name)
        (out / "first.txt").write_text(name)
        self.on_written(name, out)
        before = "".join(sorted(context.done))
        (out / "second.txt").write_text(before)
        if name == "convert":
            (out / "model.bin").write_bytes(WEIGHTS)
        context.report(1, 1)

    def _describe(self, order: Order, done: Mapping[str, Path]) -> Produced:
        self.on_describe()
        return Produced(
            format="fake",
            source=source_facts(order.source, done["fetch"]),
            tools={"fake": "1"},
            limits=Limits(max_seq_len=64, max_input_len=63, vocab_size=3),
            tokens=SpecialTokens(bos_id=None, eos_ids=[2], pad_id=None),
        )


def build_tiny(
    home: Path,
    recipe: FakeRecipe | None = None,
    variant: str | None = None,
    progress: Progress = silent,
    *,
    machine: Machine = THIS_MACHINE,
) -> Artefact:
    """The tiny model, built in `home` from a checkpoint that is there as well."""
    spec = tiny_spec(home / "checkpoint")
    recipes = {"cpu": recipe or FakeRecipe()}
    return build(spec, variant, home, progress, recipes=recipes, machine=machine)


def _main(home: Path, calls: Path, stage: str | None) -> None:
    def on_written(name: str, out: Path) -> None:
        with calls.open("a") as file:
            file.write(f"{os.getpid()} {name}\n")
        time.sleep(3600 if name == stage else 0.1)

    def stop_in_fetch(*args: Any) -> Stage:
        fetch: Stage = fetch_stage(*args)
        if stage != "fetch":
            return fetch
        return replace(fetch, run=lambda out, context: on_written("fetch", out))

    vars(pipeline)["fetch_stage"] = stop_in_fetch
    on_describe = (lambda: on_written("publish", home)) if stage == "publish" else lambda: None
    build_tiny(home, FakeRecipe(on_written=on_written, on_describe=on_describe))


def _fill(arguments: list[str]) -> None:
    def on_written(name: str, out: Path) -> None:
        (out / "large").write_bytes(bytes(100_000_000))

    vars(pipeline)["RECIPES"]["cpu"] = FakeRecipe(on_written=on_written)
    sys.argv[1:] = arguments
    cli.main()


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        _fill(sys.argv[2:])
    else:
        _main(Path(sys.argv[1]), Path(sys.argv[2]), next(iter(sys.argv[3:]), None))
