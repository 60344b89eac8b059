"""Makes artefacts of the `cpu` kind: a requantized GGUF file as OpenVINO IR, and a tokenizer."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from build_engines.artefacts.artefact import Limits
from build_engines.assembly import link_or_copy
from build_engines.checkpoints.shards import shard_names
from build_engines.checkpoints.source import source_facts
from build_engines.checkpoints.special_tokens import special_tokens
from build_engines.errors import ChoiceError
from build_engines.figures import time_class
from build_engines.ordering import require_gguf
from build_engines.recipe import BuildPlan, Order, Produced, Section
from build_engines.stages import Stage, StageContext, code_hash
from build_engines.tokenizers.stage import tokenizer_stage
from build_engines.verify.stage import verify_stage

if TYPE_CHECKING:
    from build_engines.verify.oracle import Oracle

_TOOLS = ("gguf", "openvino", "openvino-genai", "tokenizers")
_BYTES_PER_WEIGHT = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}  # blocks of 32 with an f16 scale
# Of the quantized weights, on two cores; for classes of time alone
QUANTIZE_BYTES_PER_S, CONVERT_BYTES_PER_S = 20e6, 50e6
_GGUF_NAME = "model.gguf"
_LAYOUT = {"convert": "", "tokenizer": "tokenizer"}


class CpuRecipe:
    """tokenizer -> quantize -> convert -> verify.

    The libraries for it are large and are imported when they are needed.
    """

    def plan(self, order: Order) -> BuildPlan:
        """The quantized GGUF file and the IR stand beside each other until it is published."""
        require_gguf(order)
        weights = estimated_bytes(num_parameters(order), order.variant.quantization)
        if order.checkpoint is not None:
            _check(order)
        max_seq_len = order.max_seq_len or 0
        tools = {name: metadata.version(name) for name in _TOOLS}
        quantization, code = order.variant.quantization, code_hash(Path(__file__).parent)
        stages = (
            tokenizer_stage(order, max_seq_len=max_seq_len, tools=tools),
            Stage(
                name="quantize",
                inputs={"quantization": quantization, "tools": tools, "code": code},
                run=lambda out, context: _quantize(order, out, context),
                required_bytes=weights,
                required_memory_bytes=weights + _largest_matrix_bytes(order),
                takes=time_class(weights, QUANTIZE_BYTES_PER_S),
            ),
            Stage(
                name="convert",
                inputs={"tools": tools, "code": code},
                run=_convert,
                required_bytes=2 * weights,
                required_memory_bytes=3 * weights,
                takes=time_class(weights, CONVERT_BYTES_PER_S),
            ),
        )

        def describe(done: Mapping[str, Path]) -> Produced:
            return _describe(order, done, max_seq_len, tools)

        verify = verify_stage(
            order,
            layout=_LAYOUT,
            describe=describe,
            find_oracle=lambda done: _source_by_llama_cpp(order),
            required_memory_bytes=3 * weights,
        )
        return BuildPlan(stages=(*stages, verify), layout=_LAYOUT, describe=describe)

    def sections(self, order: Order) -> list[Section]:
        """Nothing beside the stages."""
        return []


def estimated_bytes(num_parameters: int, quantization: str) -> int:
    """About how large the weights get. Raises ChoiceError for an unknown quantization."""
    if quantization not in _BYTES_PER_WEIGHT:
        known = ", ".join(_BYTES_PER_WEIGHT)
        raise ChoiceError(f"cannot quantize to {quantization}: choose one of {known}")
    # the finer embedding is up to a third of a small model
    finer = 1.3 if quantization == "q4_0" else 1.0
    return int(num_parameters * _BYTES_PER_WEIGHT[quantization] * finer)


def num_parameters(order: Order) -> int:
    """Weights of the model: the spec's number, else counted; 0 while nothing is known."""
    if order.spec.num_parameters is not None:
        return order.spec.num_parameters
    return 0 if order.architecture is None else order.architecture.num_parameters


def _largest_matrix_bytes(order: Order) -> int:
    """What the embedding takes in float32, twice: it is dequantized and quantized in one piece."""
    found = order.architecture
    return 0 if found is None else 8 * found.vocab_size * found.hidden_size


def _check(order: Order) -> None:
    from build_engines.checkpoints import gguf_file
    from build_engines.cpu import openvino_ir

    assert order.checkpoint is not None
    if len(shard_names(order.checkpoint.path.name)) > 1:
        raise ChoiceError(
            f"variant {order.variant.name} is made from one file, the checkpoint has shards: join "
            "them with `llama-gguf-split --merge`, or serve them as they are (variant gguf)"
        )
    openvino_ir.check_architecture(order.checkpoint.architecture.model_type)
    openvino_ir.check_readable(gguf_file.open_gguf(order.checkpoint.path))


def _quantize(order: Order, out: Path, context: StageContext) -> None:
    from build_engines.checkpoints import gguf_file
    from build_engines.cpu import gguf_requant

    assert order.fetched is not None
    reader = gguf_file.open_gguf(order.fetched)
    gguf_requant.requantize(reader, out / _GGUF_NAME, order.variant.quantization, context.report)


def _convert(out: Path, context: StageContext) -> None:
    from build_engines.cpu import openvino_ir

    scratch = out / "scratch"  # OpenVINO writes beside its source
    scratch.mkdir()
    link_or_copy(context.done["quantize"] / _GGUF_NAME, scratch / _GGUF_NAME)
    openvino_ir.convert(scratch / _GGUF_NAME, out)
    shutil.rmtree(scratch)
    openvino_ir.check(out)


def _source_by_llama_cpp(order: Order) -> Oracle:
    """OpenVINO's legacy GGUF reader is what may go wrong: another library reads the source."""
    from build_engines.verify.oracle import Oracle, OracleFormat

    assert order.fetched is not None
    name = order.fetched.name
    return Oracle(format=OracleFormat.GGUF, path=order.fetched, description=f"llama.cpp on {name}")


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
            vocab_size=openvino_ir.check(done["convert"]),
        ),
        tokens=special_tokens(order.spec.tokens, done["tokenizer"]),
    )
