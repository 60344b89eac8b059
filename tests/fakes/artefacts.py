"""Published models without weights: what the frontend reads of an artefact, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from tokenizers import Tokenizer

from build_engines.artefacts.artefact import (
    SCHEMA_VERSION,
    Adapter,
    Artefact,
    EngineFacts,
    Limits,
    Manifest,
    SpecialTokens,
    describe_files,
    publish,
)
from tests.fakes.tokenizers import CHAT_TEMPLATE, END_OF_TURN, byte_level_tokenizer, write_tokenizer


def publish_model(
    home: Path,
    name: str,
    variant: str = "q8_0",
    *,
    kind: str = "cpu",
    quantization: str | None = None,
    chat_template: str | None = CHAT_TEMPLATE,
    other_eos_ids: tuple[int, ...] = (),
    bos_id: int | None = None,
    fill_in_middle: str | None = None,
    engine: EngineFacts | None = None,
    adapters: Mapping[str, Adapter] = MappingProxyType({}),
) -> Artefact:
    """Publish a model with a byte-level tokenizer; its size is 4.2 GB in its manifest."""
    tokenizer: Tokenizer = byte_level_tokenizer()
    end_id = tokenizer.token_to_id(END_OF_TURN)
    assert isinstance(end_id, int)
    built = home / "building" / f"{name}-{variant}"
    write_tokenizer(built / "tokenizer", tokenizer, chat_template=chat_template)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        variant=variant,
        kind=kind,
        format="gguf" if kind in ("cpu", "llama_cpp") else "tensorrt_llm",
        quantization=quantization or variant,
        source={},
        tools={},
        files=describe_files(built),
        size_bytes=4_200_000_000,
        limits=Limits(max_seq_len=2048, max_input_len=2047, vocab_size=1000),
        tokens=SpecialTokens(
            bos_id=bos_id,
            eos_ids=[end_id, *other_eos_ids],
            pad_id=None,
            fill_in_middle=fill_in_middle,
        ),
        created="2026-01-01T00:00:00+00:00",
        memory_bytes=3_800_000_000,
        engine=engine,
        adapters=dict(adapters),
    )
    return publish(home, built, manifest)
