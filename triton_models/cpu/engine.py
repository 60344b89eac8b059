"""Puts the engine together: an artefact's directory and a few numbers become a running Batcher.

In Triton the settings are the parameters of config.pbtxt; the benchmark has an artefact's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triton_models.cpu.batcher import Batcher, BatcherLimits
from triton_models.cpu.model import OpenVinoModel
from triton_models.guided import GuideCompiler

IR_FILE = "openvino_model.xml"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """The names are those of the parameters in cpu/config.pbtxt."""

    artefact_dir: Path
    max_seq_len: int
    max_input_len: int
    vocab_size: int
    variant: str = ""
    kv_cache_bytes: int = 512 * 1024 * 1024
    kv_cache_precision: str = "f16"
    enable_kv_cache_reuse: bool = True
    max_num_sequences: int = 64
    max_num_tokens: int = 256
    max_queue_size: int = 256
    num_threads: int = 0  # 0: one for each core
    exclude_input_in_output: bool = True
    cancellation_check_period_ms: int = 30
    stats_check_period_ms: int = 50

    @classmethod
    def from_artefact(cls, artefact_dir: Path, **overrides: Any) -> EngineSettings:
        """Limits from the artefact's manifest.json, the rest from the defaults or `overrides`."""
        manifest = json.loads((artefact_dir / "manifest.json").read_text(encoding="utf-8"))
        limits = {name: manifest["limits"][name] for name in _LIMITS}
        return cls(artefact_dir=artefact_dir, **(limits | overrides))


_LIMITS = ("max_seq_len", "max_input_len", "vocab_size")


def load_batcher(settings: EngineSettings) -> Batcher:
    """Loads the model and starts its step thread; `close()` it."""
    model = OpenVinoModel(
        settings.artefact_dir / IR_FILE,
        kv_cache_bytes=settings.kv_cache_bytes,
        kv_cache_precision=settings.kv_cache_precision,
        num_threads=settings.num_threads,
    )
    limits = BatcherLimits(
        max_seq_len=settings.max_seq_len,
        max_input_len=settings.max_input_len,
        max_num_sequences=settings.max_num_sequences,
        max_num_tokens=settings.max_num_tokens,
        max_queue_size=settings.max_queue_size,
    )
    return Batcher(model, limits, enable_prefix_cache=settings.enable_kv_cache_reuse)


def load_guides(settings: EngineSettings) -> GuideCompiler:
    """The grammar compiler for the artefact's tokenizer."""
    tokenizer_file = settings.artefact_dir / "tokenizer" / "tokenizer.json"
    manifest = json.loads((settings.artefact_dir / "manifest.json").read_text(encoding="utf-8"))
    return GuideCompiler(tokenizer_file, settings.vocab_size, manifest["tokens"]["eos_ids"])
