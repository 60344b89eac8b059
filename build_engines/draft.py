"""Drafts the spec of a checkpoint: what `inflight build --init` prints, to be edited and saved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from build_engines.checkpoints.architecture import Architecture
from build_engines.checkpoints.checkpoint import open_checkpoint
from build_engines.checkpoints.hub import read_config
from build_engines.checkpoints.source import local_path
from build_engines.cpu.openvino_ir import ARCHITECTURES
from build_engines.errors import SourceError, UnknownArchitectureError
from build_engines.families.family import GPU_QUANTIZATIONS, Family
from build_engines.families.table import family_of
from build_engines.ordering import is_gguf, name_of, parse_checkpoint
from build_engines.spec import HubSource, PathSource, Source
from build_engines.variants import GGUF_AS_IT_IS, GGUF_QUANTIZATIONS, OPENVINO, OPTIMUM_VARIANTS


def draft_spec(checkpoint: str, name: str | None = None) -> str:
    """A spec in TOML that builds as it is. Raises SourceError, UnknownArchitectureError."""
    source = parse_checkpoint(checkpoint)
    return "\n".join(_lines(source, name or name_of(source), _architecture(source))) + "\n"


def _architecture(source: Source) -> Architecture:
    path = local_path(source)
    if path is not None:
        return open_checkpoint(Path(path)).architecture
    assert isinstance(source, HubSource)
    if source.file is not None:
        raise SourceError(
            f"{source.hf}/{source.file} is not here: a GGUF file tells all by itself, build it by "
            "--checkpoint without a spec"
        )
    return Architecture.from_config(read_config(source))


def _lines(source: Source, name: str, architecture: Architecture) -> Iterator[str]:
    try:
        family: Family | None = family_of(architecture)
    except UnknownArchitectureError:
        family = None
    yield f"name = {_text(name)}"
    if family is not None:
        yield f"family = {_text(family.name)}"
    yield f"max_seq_len = {architecture.max_position_embeddings}"
    variants = _variants(source, architecture, family)
    yield f"default_variant = {_text(variants[0])}"
    yield "# chat_template, tool_parser, reasoning_parser: left out, they are the checkpoint's"
    yield ""
    yield "[source]"
    yield from _source(source)
    yield ""
    yield "# One of these is built by --variant; a table changes what it is sized for, as in"
    yield "# [variants.int4_awq] tp_size = 2, [variants.int4_awq.limits] max_batch_size = 16"
    for variant in variants:
        yield f"[variants.{variant}]"


def _source(source: Source) -> Iterator[str]:
    if isinstance(source, PathSource):
        yield f"path = {_text(source.path)}"
    elif isinstance(source, HubSource):
        yield f"hf = {_text(source.hf)}"
        if source.revision != "main":
            yield f"revision = {_text(source.revision)}"


def _variants(source: Source, architecture: Architecture, family: Family | None) -> list[str]:
    """What can be built of it, the safest first."""
    if is_gguf(source):
        is_openvino = architecture.model_type in ARCHITECTURES
        return [GGUF_AS_IT_IS, *(GGUF_QUANTIZATIONS if is_openvino else ())]
    if family is None:
        return [OPENVINO]
    own = [
        quantization
        for quantization in GPU_QUANTIZATIONS
        if family.why_not(family.kind_of(quantization), quantization) is None
    ]
    return [*own, *OPTIMUM_VARIANTS]


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)  # a JSON string is a TOML one
