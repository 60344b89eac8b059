"""Makes artefacts of the `cpu` kind from Hugging Face checkpoints: OpenVINO IR by optimum-intel.

optimum-intel and PyTorch live in an environment of their own; nothing of theirs is imported here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from build_engines.artefacts.artefact import Limits
from build_engines.checkpoints.source import source_facts
from build_engines.checkpoints.special_tokens import special_tokens
from build_engines.cpu.recipe import CONVERT_BYTES_PER_S, QUANTIZE_BYTES_PER_S, num_parameters
from build_engines.errors import ChoiceError, ToolError
from build_engines.figures import time_class
from build_engines.recipe import BuildPlan, Order, Produced, Section
from build_engines.stages import Stage, StageContext, code_hash
from build_engines.tensorrt.tool_process import run_logged
from build_engines.tokenizers.stage import tokenizer_stage
from build_engines.verify.stage import verify_stage

if TYPE_CHECKING:
    from build_engines.verify.oracle import Oracle

PYTHON_VARIABLE = "INFLIGHT_EXPORT_PYTHON"
# What was exported by these versions, loaded by the engine and held to transformers' tokens. Not
# Gemma 2: optimum-intel leaves out the soft capping of its attention.
MODEL_TYPES = frozenset(
    {
        *("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma"),
        *("gemma3_text", "phi3", "glm", "glm4", "gpt_oss"),
    }
)
REQUIREMENTS = ("optimum-intel==2.2.0", "transformers==5.0.0")  # the extra openvino-export
_TOOLS = ("optimum-intel", "transformers", "torch", "openvino", "nncf")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
_VERSIONS_PROGRAM = (
    "import json, sys; from importlib.metadata import version; "
    "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
)
_COMPRESS_PROGRAM = (
    "import sys, nncf, openvino; model = openvino.Core().read_model(sys.argv[1]); "
    "model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM); "
    "openvino.save_model(model, sys.argv[2], compress_to_fp16=False)"
)


class OptimumRecipe:
    """tokenizer -> export -> convert (what is to be int8) -> verify."""

    def plan(self, order: Order) -> BuildPlan:
        """The unquantized IR stands beside the quantized one, which is held to it."""
        _check(order)
        tools: dict[str, str] = {}
        if order.checkpoint is not None:
            tools = {**_versions(export_python()), "tokenizers": metadata.version("tokenizers")}
        max_seq_len = order.max_seq_len or 0
        weights = num_parameters(order)
        is_int8 = order.variant.quantization == "int8"
        layout = {"convert" if is_int8 else "export": "", "tokenizer": "tokenizer"}
        tokenizer = tokenizer_stage(order, max_seq_len=max_seq_len, tools=tools)
        stages = [tokenizer, _export_stage(order, weights, tools)]
        if is_int8:
            stages.append(_compress_stage(weights, tools))

        def describe(done: Mapping[str, Path]) -> Produced:
            return _describe(order, done, max_seq_len, tools)

        stages.append(
            verify_stage(
                order,
                layout=layout,
                describe=describe,
                find_oracle=lambda done: _exported(order, done["export"], is_int8=is_int8),
                required_memory_bytes=5 * weights,
            )
        )
        return BuildPlan(stages=tuple(stages), layout=layout, describe=describe)

    def sections(self, order: Order) -> list[Section]:
        """Nothing beside the stages."""
        return []


def export_python() -> str:
    """The Python whose environment has optimum-intel: this one, unless the variable names one."""
    return os.environ.get(PYTHON_VARIABLE) or sys.executable


def _versions(python: str) -> dict[str, str]:
    """Of the tools that export. Raises ToolError, which says how to get them."""
    command = [python, "-c", _VERSIONS_PROGRAM, *_TOOLS]
    try:
        finished = subprocess.run(command, capture_output=True, check=False)
    except OSError as exc:
        raise ToolError(f"{PYTHON_VARIABLE} is {python}: {exc.strerror}") from exc
    if finished.returncode != 0:
        raise ToolError(
            f"{python} has no optimum-intel, which turns PyTorch's models into OpenVINO's: run "
            f"`python3 -m venv DIR && DIR/bin/pip install {' '.join(REQUIREMENTS)}` and set "
            f"{PYTHON_VARIABLE}=DIR/bin/python"
        )
    return msgspec.json.decode(finished.stdout, type=dict[str, str])


def _check(order: Order) -> None:
    """Before anything is fetched, if the model's numbers are known by then."""
    checkpoint, architecture = order.checkpoint, order.architecture
    if checkpoint is not None and checkpoint.format != "hf":
        raise ChoiceError(
            f"variant {order.variant.name} is made from a Hugging Face folder, the checkpoint is a "
            "GGUF file: build the variant gguf (the file as it is) or q8_0"
        )
    if architecture is not None and architecture.model_type not in MODEL_TYPES:
        known = ", ".join(sorted(MODEL_TYPES))
        raise ChoiceError(
            f"{order.spec.name}: {architecture.model_type} models cannot be exported to OpenVINO "
            f"without loss or code of the checkpoint's, only {known}: serve a GGUF file of it "
            "(--variant gguf)"
        )


def _export_stage(order: Order, weights: int, tools: dict[str, str]) -> Stage:
    command = _export_command(order.fetched or Path("CHECKPOINT"), Path())
    return Stage(
        name="export",
        inputs={"tools": tools, "code": code_hash(Path(__file__).parent)},
        run=lambda out, context: _export(order, out, context),
        required_bytes=4 * weights,
        required_memory_bytes=8 * weights,  # PyTorch's copy and OpenVINO's
        takes=time_class(4 * weights, CONVERT_BYTES_PER_S),
        commands=(" ".join(command),),
    )


def _compress_stage(weights: int, tools: dict[str, str]) -> Stage:
    return Stage(
        name="convert",
        inputs={"tools": tools, "code": code_hash(Path(__file__).parent)},
        run=_compress,
        required_bytes=int(1.1 * weights),
        required_memory_bytes=5 * weights,
        takes=time_class(weights, QUANTIZE_BYTES_PER_S),
    )


def _export_command(checkpoint: Path, out: Path) -> list[str]:
    """Without --trust-remote-code: a checkpoint's code is never run."""
    return [
        *(export_python(), "-m", "optimum.commands.optimum_cli", "export", "openvino"),
        *("--model", str(checkpoint), "--library", "transformers"),
        *("--task", "text-generation-with-past", "--disable-convert-tokenizer"),
        *("--weight-format", "fp32", str(out)),
    ]


def _export(order: Order, out: Path, context: StageContext) -> None:
    from build_engines.cpu import openvino_ir

    assert order.fetched is not None
    exported = out / "exported"
    command = _export_command(order.fetched.resolve(), exported)
    _run(command, out, context)
    for name in (openvino_ir.MODEL_XML, openvino_ir.MODEL_BIN):
        (exported / name).rename(out / name)
    shutil.rmtree(exported)
    openvino_ir.check(out)


def _compress(out: Path, context: StageContext) -> None:
    from build_engines.cpu import openvino_ir

    files = [str(folder / openvino_ir.MODEL_XML) for folder in (context.done["export"], out)]
    _run([export_python(), "-c", _COMPRESS_PROGRAM, *files], out, context)
    openvino_ir.check(out)


def _run(command: list[str], out: Path, context: StageContext) -> None:
    failure = run_logged(command, cwd=out, env=_OFFLINE, log=context.log)
    if failure is not None:
        raise ToolError(failure.message(command))


def _exported(order: Order, directory: Path, *, is_int8: bool) -> Oracle:
    """The float32 model by OpenVINO alone, without our batcher and its paged attention."""
    from build_engines.verify.oracle import Oracle, OracleFormat

    name = order.fetched.name if order.fetched else order.spec.name
    return Oracle(
        format=OracleFormat.OPENVINO,
        path=directory,
        description=f"OpenVINO in float32 on {name}",
        has_same_weights=not is_int8,
    )


def _describe(
    order: Order, done: Mapping[str, Path], max_seq_len: int, tools: dict[str, str]
) -> Produced:
    from build_engines.cpu import openvino_ir

    return Produced(
        format="openvino_ir",
        source=source_facts(order.source, done["fetch"]),
        tools=tools,
        limits=Limits(
            max_seq_len=max_seq_len,
            max_input_len=max_seq_len - 1,  # one token must fit behind the prompt
            vocab_size=openvino_ir.check(done["export"]),
        ),
        tokens=special_tokens(order.spec.tokens, done["tokenizer"]),
    )
