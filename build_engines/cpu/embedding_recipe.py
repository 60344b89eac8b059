"""Makes artefacts of the `embedding` kind: a sentence-transformers folder as OpenVINO IR."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from build_engines.artefacts.artefact import Limits
from build_engines.checkpoints.source import fetched_path, source_facts
from build_engines.checkpoints.special_tokens import special_tokens
from build_engines.errors import ConversionError
from build_engines.recipe import BuildPlan, Order, Produced, Section
from build_engines.stages import Stage, StageContext, code_hash
from build_engines.verify.stage import verify_stage

_TOOLS = ("openvino", "safetensors", "tokenizers")
_TOKENIZER_BYTES = 16 << 20
_BYTES_PER_WEIGHT = {"f16": 2, "f32": 4}
_WEIGHTS_NAME = "model.safetensors"
_LAYOUT = {"convert": "", "tokenizer": "tokenizer"}


class EmbeddingRecipe:
    """tokenizer -> convert -> verify.

    The libraries for it are large and are imported when they are needed.
    """

    def plan(self, order: Order) -> BuildPlan:
        """Verified against what the source's makers publish."""
        assert order.max_seq_len is not None  # of this kind's specs
        quantization, code = order.variant.quantization, code_hash(Path(__file__).parent)
        bytes_per_weight = _bytes_per_weight(quantization)
        num_parameters = order.spec.num_parameters or 0
        tools = {name: metadata.version(name) for name in _TOOLS}
        stages = (
            Stage(
                name="tokenizer",
                inputs={"max_seq_len": order.max_seq_len, "tools": tools, "code": code},
                run=lambda out, context: _tokenizer(order, out, context),
                required_bytes=_TOKENIZER_BYTES,
            ),
            Stage(
                name="convert",
                inputs={"quantization": quantization, "tools": tools, "code": code},
                run=lambda out, context: _convert(order, out, context),
                required_bytes=bytes_per_weight * num_parameters,
                required_memory_bytes=12 * num_parameters,  # read, as float32, and as a graph
            ),
        )

        def describe(done: Mapping[str, Path]) -> Produced:
            return _describe(order, done, tools)

        verify = verify_stage(
            order, layout=_LAYOUT, describe=describe, required_memory_bytes=8 * num_parameters
        )
        return BuildPlan(stages=(*stages, verify), layout=_LAYOUT, describe=describe)

    def sections(self, order: Order) -> list[Section]:
        """Nothing beside the stages."""
        return []


def _tokenizer(order: Order, out: Path, context: StageContext) -> None:
    assert order.fetched is not None
    assert order.max_seq_len is not None
    _write_tokenizer(order.fetched / "tokenizer.json", out, order.max_seq_len)


def _convert(order: Order, out: Path, context: StageContext) -> None:
    import openvino

    from build_engines.cpu import bert_ir
    from build_engines.cpu.openvino_ir import MODEL_XML, name_by_place

    assert order.fetched is not None
    assert order.max_seq_len is not None
    config = bert_ir.read_config(order.fetched / "config.json")
    bert_ir.check_pooling(order.fetched)
    if order.max_seq_len > config.max_position_embeddings:
        raise ConversionError(
            f"max_seq_len {order.max_seq_len} is beyond the model's "
            f"{config.max_position_embeddings} positions"
        )
    graph = bert_ir.build_graph(bert_ir.read_weights(order.fetched / _WEIGHTS_NAME), config)
    is_half = _bytes_per_weight(order.variant.quantization) == 2
    name_by_place(graph)
    openvino.save_model(graph, out / MODEL_XML, compress_to_fp16=is_half)


def _describe(order: Order, done: Mapping[str, Path], tools: dict[str, str]) -> Produced:
    from build_engines.cpu import bert_ir

    assert order.max_seq_len is not None
    config = bert_ir.read_config(fetched_path(done["fetch"]) / "config.json")
    return Produced(
        format="openvino_ir",
        source=source_facts(order.source, done["fetch"]),
        tools=tools,
        limits=Limits(
            max_seq_len=order.max_seq_len,
            max_input_len=order.max_seq_len,  # nothing comes behind the input
            vocab_size=config.vocab_size,
        ),
        tokens=special_tokens(order.spec.tokens, None),
        embedding_size=config.hidden_size,
    )


def _bytes_per_weight(quantization: str) -> int:
    try:
        return _BYTES_PER_WEIGHT[quantization]
    except KeyError:
        known = ", ".join(_BYTES_PER_WEIGHT)
        raise ConversionError(f"quantization {quantization} is not one of {known}") from None


def _write_tokenizer(source: Path, directory: Path, max_seq_len: int) -> None:
    """The source's tokenizer, without the cuts and the padding of its training."""
    from tokenizers import Tokenizer

    try:
        tokenizer: Any = Tokenizer.from_file(str(source))
    except Exception as exc:  # tokenizers raises bare Exceptions
        raise ConversionError(f"{source.name}: {exc}") from exc
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_seq_len,
        "clean_up_tokenization_spaces": False,
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }
    content = msgspec.json.format(msgspec.json.encode(config), indent=2)
    (directory / "tokenizer_config.json").write_bytes(content)
