"""Puts the engine together: an artefact's directory and a few numbers become a running Batcher."""

from __future__ import annotations

from triton_models.batching.batcher import Batcher
from triton_models.batching.settings import EngineSettings
from triton_models.cpu.model import OpenVinoModel
from triton_models.cpu.paged import PagedBackend

IR_FILE = "openvino_model.xml"


def load_batcher(settings: EngineSettings) -> Batcher:
    """Loads the model and starts its step thread; `close()` it."""
    model = OpenVinoModel(
        settings.artefact_dir / IR_FILE,
        kv_cache_bytes=settings.kv_cache_bytes,
        kv_cache_precision=settings.kv_cache_precision,
        num_threads=settings.num_threads,
    )
    backend = PagedBackend(model, enable_prefix_cache=settings.enable_kv_cache_reuse)
    return Batcher(backend, settings.batcher_limits)
