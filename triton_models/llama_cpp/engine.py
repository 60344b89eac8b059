"""Puts the engine together: an artefact's directory and a few numbers become a running Batcher."""

from __future__ import annotations

import logging
from pathlib import Path

from triton_models.batching.batcher import Batcher
from triton_models.batching.settings import EngineSettings
from triton_models.llama_cpp.backend import LlamaBackend
from triton_models.llama_cpp.model import LlamaModel, LlamaModelError

logger = logging.getLogger(__name__)

WEIGHTS_FOLDER = "checkpoint"

# Sequences that have ended stay findable in so many slots even when the batch is full
NUM_RESIDENT = 32


class _ProgressLog:
    """Logs each tenth of the loading once: a large file on a slow disk takes minutes."""

    def __init__(self, artefact_dir: Path) -> None:
        self._artefact = f"{artefact_dir.parent.name}/{artefact_dir.name}"
        self._num_tenths = 0

    def __call__(self, fraction: float) -> None:
        if int(fraction * 10) > self._num_tenths:
            self._num_tenths = int(fraction * 10)
            logger.info("loading %s: %d %%", self._artefact, self._num_tenths * 10)


def gguf_path(artefact_dir: Path) -> Path:
    """The artefact's GGUF file; of shards the first, which llama.cpp finds the others by. Raises
    LlamaModelError."""
    paths = sorted((artefact_dir / WEIGHTS_FOLDER).glob("*.gguf"))
    if not paths:
        raise LlamaModelError(f"there is no GGUF file in {artefact_dir / WEIGHTS_FOLDER}")
    return paths[0]


def load_batcher(settings: EngineSettings) -> Batcher:
    """Loads the model and starts its step thread; `close()` it."""
    model = LlamaModel(
        gguf_path(settings.artefact_dir),
        kv_cache_bytes=settings.kv_cache_bytes,
        kv_cache_precision=settings.kv_cache_precision,
        max_seq_len=settings.max_seq_len,
        max_num_sequences=settings.max_num_sequences,
        max_num_tokens=settings.max_num_tokens,
        num_resident=NUM_RESIDENT,
        num_threads=settings.num_threads,
        on_progress=_ProgressLog(settings.artefact_dir),
    )
    if model.vocab_size != settings.vocab_size:
        model.close()
        raise LlamaModelError(
            f"the file has {model.vocab_size} tokens, its manifest says {settings.vocab_size}"
        )
    backend = LlamaBackend(model, enable_prefix_cache=settings.enable_kv_cache_reuse)
    return Batcher(backend, settings.batcher_limits)
