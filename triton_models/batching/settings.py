"""What a batching engine is told: the parameters of its config.pbtxt, or a benchmark's choice."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from triton_models.batching.batcher import BatcherLimits
from triton_models.guided import GuideCompiler

_LIMITS = ("max_seq_len", "max_input_len", "vocab_size")


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
    def from_artefact(cls, artefact_dir: Path, **overrides: Any) -> Self:
        """Limits from the artefact's manifest.json, the rest from the defaults or `overrides`."""
        manifest = json.loads((artefact_dir / "manifest.json").read_text(encoding="utf-8"))
        limits = {name: manifest["limits"][name] for name in _LIMITS}
        return cls(artefact_dir=artefact_dir, **(limits | overrides))

    @property
    def batcher_limits(self) -> BatcherLimits:
        """The part that the batcher keeps to."""
        return BatcherLimits(
            max_seq_len=self.max_seq_len,
            max_input_len=self.max_input_len,
            max_num_sequences=self.max_num_sequences,
            max_num_tokens=self.max_num_tokens,
            max_queue_size=self.max_queue_size,
        )


def load_guides(settings: EngineSettings) -> GuideCompiler:
    """The grammar compiler for the artefact's tokenizer."""
    tokenizer_file = settings.artefact_dir / "tokenizer" / "tokenizer.json"
    manifest = json.loads((settings.artefact_dir / "manifest.json").read_text(encoding="utf-8"))
    return GuideCompiler(tokenizer_file, settings.vocab_size, manifest["tokens"]["eos_ids"])
