"""Publishes what is built already, as it is: an artefact of another machine, a TensorRT engine, an
OpenVINO IR; and LoRA adapters for a model that is published.

A GGUF file needs no rule of its own: the pipeline publishes it as it is (variant `gguf`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from build_engines.artefacts.artefact import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    Artefact,
    EngineFacts,
    Limits,
    Manifest,
    SpecialTokens,
    artefact_dir,
    describe_files,
    is_safe_name,
    publish,
    read_directory,
    verify_hashes,
)
from build_engines.assembly import link_or_copy
from build_engines.cpu import openvino_ir
from build_engines.errors import ArtefactError, ChoiceError, SourceError
from build_engines.lock import build_lock
from build_engines.lora.adapter import check_adapter_name, read_adapters, write_adapter
from build_engines.lora.files import ADAPTERS_DIR
from build_engines.pipeline import STAGING_SUFFIX
from build_engines.tensorrt import engine_config, xgrammar_info
from triton_models.llm_api.options import read_options

TOKENIZER_DIR = "tokenizer"
ENGINE_DIR = "engine"
_QUANTIZATIONS = {  # of an engine's config.json -> as our variants are called
    None: "fp16",
    "FP8": "fp8",
    "W8A16": "int8_wo",
    "W4A16": "int4_wo",
    "W4A16_AWQ": "int4_awq",
    "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN": "int8_sq",
    "W4A8_AWQ": "w4a8_awq",
    "NVFP4": "nvfp4",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """What is to be published, and how it is to be called. None: as it calls itself."""

    source: Path
    name: str | None = None
    variant: str | None = None
    tokenizer: Path | None = None  # folder of a checkpoint's or a plain tokenizer
    chat_template: str | None = None  # one of ours
    max_seq_len: int | None = None


def adopt(adoption: Adoption, home: Path) -> Artefact:
    """Publishes a folder without building anything of it.

    Raises SourceError for a folder of no kind that is known, and for one that is damaged.
    """
    source = adoption.source
    if (source / MANIFEST_NAME).is_file():
        return _adopt_artefact(adoption, home)
    if any(source.glob("rank*.engine")):
        return _adopt(adoption, home, _engine)
    if (source / openvino_ir.MODEL_XML).is_file():
        return _adopt(adoption, home, _openvino)
    raise SourceError(
        f"{source} is no folder of an artefact ({MANIFEST_NAME}), of a TensorRT engine "
        f"(config.json, rank0.engine) or of an OpenVINO IR ({openvino_ir.MODEL_XML}): "
        "a checkpoint is built by `inflight build --checkpoint`"
    )


def add_adapters(home: Path, base: Artefact, adapters: Mapping[str, Path]) -> Artefact:
    """Publishes a new version of a model that has these LoRA adapters, too.

    Raises ChoiceError for what its engine cannot take, SourceError for a damaged adapter.
    """
    manifest = base.manifest
    for name in adapters:
        check_adapter_name(name)
    max_rank = manifest.engine.max_lora_rank if manifest.engine else None
    if manifest.kind == "tensorrt_llm" and max_rank is None:
        raise ChoiceError(
            f"the engine of {manifest.name}/{manifest.variant} was built without LoRA: "
            "write [lora] max_rank into its spec and build it again"
        )
    if manifest.kind == "llm_api" and not read_options(base.path).get("lora_config"):
        raise ChoiceError(
            f"{manifest.name}/{manifest.variant} was built without LoRA: "
            "write [lora] max_rank into its spec and build it again"
        )
    with _staging(home, manifest.name, manifest.variant) as staged:
        kept = [
            path
            for path in manifest.files
            if not any(path.startswith(f"{ADAPTERS_DIR}/{name}/") for name in adapters)
        ]
        for path in kept:
            _link(base.path / path, staged / path)
        for name, source in adapters.items():
            target = staged / ADAPTERS_DIR / name
            write_adapter(source, target, kind=manifest.kind, max_rank=max_rank)
        files = describe_files(staged / ADAPTERS_DIR)
        own = {f"{ADAPTERS_DIR}/{path}": entry for path, entry in files.items()}
        files = dict(sorted({**{path: manifest.files[path] for path in kept}, **own}.items()))
        changed = replace(
            manifest,
            files=files,
            size_bytes=sum(entry.size_bytes for entry in files.values()),
            adapters={**manifest.adapters, **read_adapters(staged)},
            created=_now(),
        )
        return publish(home, staged, changed)


def _adopt_artefact(adoption: Adoption, home: Path) -> Artefact:
    found = read_directory(adoption.source)
    verify_hashes(found)
    name = _safe(adoption.name or found.manifest.name)
    variant = _safe(adoption.variant or found.manifest.variant)
    with _staging(home, name, variant) as staged:
        for path in found.manifest.files:
            _link(found.path / path, staged / path)
        return publish(home, staged, replace(found.manifest, name=name, variant=variant))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Described:
    """What a folder says of itself. Paths are inside the artefact."""

    kind: str
    format: str
    quantization: str
    limits: Limits
    folder: str  # for what is taken of the source; "" is the top
    names: tuple[str, ...]
    tools: dict[str, str]
    engine: EngineFacts | None = None


def _adopt(adoption: Adoption, home: Path, describe: Callable[[Adoption], _Described]) -> Artefact:
    described = describe(adoption)
    name = _safe(adoption.name or adoption.source.resolve().name)
    variant = _safe(adoption.variant or described.quantization)
    with _staging(home, name, variant) as staged:
        for one in described.names:
            _link(adoption.source / one, staged / described.folder / one)
        tokens = _write_tokenizer(adoption, staged / TOKENIZER_DIR, described.limits.max_seq_len)
        if described.kind == "tensorrt_llm":
            xgrammar_info.write_tokenizer_info(
                staged / TOKENIZER_DIR / "tokenizer.json",
                tokens.eos_ids,
                described.limits.vocab_size,
                staged / xgrammar_info.FILE_NAME,
            )
        files = describe_files(staged)
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            name=name,
            variant=variant,
            kind=described.kind,
            format=described.format,
            quantization=described.quantization,
            source={"path": str(adoption.source.resolve())},
            tools=described.tools,
            files=files,
            size_bytes=sum(entry.size_bytes for entry in files.values()),
            limits=described.limits,
            tokens=tokens,
            created=_now(),
            memory_bytes=None,
            engine=described.engine,
        )
        return publish(home, staged, manifest)


def _engine(adoption: Adoption) -> _Described:
    if adoption.tokenizer is None:
        raise ChoiceError("an engine has no tokenizer: give the checkpoint's folder by --tokenizer")
    found = engine_config.read_engine_config(adoption.source)
    ranks = (f"rank{rank}.engine" for rank in range(found.world_size))
    return _Described(
        kind="tensorrt_llm",
        format="tensorrt_engine",
        quantization=_QUANTIZATIONS.get(found.quant_algo, str(found.quant_algo).lower()),
        limits=found.limits(found.max_draft_len),
        folder=ENGINE_DIR,
        names=(engine_config.CONFIG_NAME, *ranks),
        tools={"tensorrt-llm": found.version} if found.version else {},
        engine=EngineFacts(
            max_batch_size=found.max_batch_size,
            max_num_tokens=found.max_num_tokens,
            kv_cache={"INT8": "int8", "FP8": "fp8"}.get(found.kv_cache_quant_algo or ""),
            tp_size=found.tp_size,
            pp_size=found.pp_size,
            ep_size=found.ep_size,
            max_beam_width=found.max_beam_width,
            has_chunked_context=found.has_paged_context,
            has_kv_reuse=found.has_paged_context,
            max_lora_rank=found.max_lora_rank,
        ),
    )


def _openvino(adoption: Adoption) -> _Described:
    vocab_size = openvino_ir.check(adoption.source)
    config = _read_json(adoption.source / "config.json")
    max_seq_len = adoption.max_seq_len or config.get("max_position_embeddings")
    if not isinstance(max_seq_len, int):
        raise ChoiceError("the IR's config.json has no context length: give it by --max-seq-len")
    return _Described(
        kind="cpu",
        format="openvino_ir",
        quantization=adoption.variant or "openvino",
        limits=Limits(
            max_seq_len=max_seq_len, max_input_len=max_seq_len - 1, vocab_size=vocab_size
        ),
        folder="",
        names=(openvino_ir.MODEL_XML, openvino_ir.MODEL_BIN),
        tools={"openvino": metadata.version("openvino")},
    )


def _write_tokenizer(adoption: Adoption, target: Path, max_seq_len: int) -> SpecialTokens:
    from build_engines.tokenizers.write import write_tokenizer

    source = adoption.tokenizer or adoption.source
    if not source.is_dir():
        raise SourceError(f"{source} is no folder: give the tokenizer's by --tokenizer")
    tokens = write_tokenizer(
        source, target, max_seq_len=max_seq_len, chat_template=adoption.chat_template
    )
    if not tokens.eos_ids:
        raise SourceError(f"the tokenizer in {source} does not say which token ends an answer")
    return tokens


@contextmanager
def _staging(home: Path, name: str, variant: str) -> Iterator[Path]:
    """A directory beside the place of publication, gone afterwards."""
    staged = artefact_dir(home, name, f".{variant}{STAGING_SUFFIX}")
    with build_lock(home, name, variant, on_wait=lambda: None):
        shutil.rmtree(staged, ignore_errors=True)
        try:
            staged.mkdir(parents=True)
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    if not source.is_file():
        raise ArtefactError(f"{source} is missing")
    target.parent.mkdir(parents=True, exist_ok=True)
    link_or_copy(source.resolve(), target)


def _safe(name: str) -> str:
    if not is_safe_name(name):
        raise ChoiceError(f"a model or variant cannot be called {name!r}: choose by --name")
    return name


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        return {}
    except msgspec.DecodeError as exc:
        raise SourceError(f"{path}: {exc}") from exc


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
