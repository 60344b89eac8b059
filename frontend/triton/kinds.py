"""What each kind of engine wants in its config.pbtxt, of an artefact and of the settings."""

from __future__ import annotations

import json
from collections.abc import Mapping

from build_engines.artefact import Artefact
from frontend.settings import Settings
from triton_models.llm_api.options import read_options, undeclared_tensors
from triton_models.render import Value


def values_of_kind(settings: Settings, artefact: Artefact) -> Mapping[str, Value]:
    path = artefact.path
    match artefact.manifest.kind:
        case "cpu":
            return {
                "kv_cache_bytes": settings.kv_cache_bytes,
                "max_num_sequences": settings.max_num_sequences,
                "max_queue_size": settings.max_queue_size,
                "num_threads": settings.num_threads,
            }
        case "embedding":
            return {
                "embedding_size": artefact.manifest.embedding_size or 0,
                "max_queue_size": settings.max_queue_size,
                "num_threads": settings.num_threads,
            }
        case "tensorrt_llm":
            return {
                "engine_dir": str(path / "engine"),
                "tokenizer_dir": str(path / "tokenizer"),
                "xgrammar_tokenizer_info_path": str(path / "xgrammar_tokenizer_info.json"),
                "max_queue_size": settings.max_queue_size,
            }
        case "llm_api":
            max_num_sequences = read_options(path)["max_batch_size"]
            return {
                "max_num_sequences": max_num_sequences,
                "max_queue_size": settings.max_queue_size,
                "lora_adapters": _adapters(artefact),
            }
        case _:
            return {}


def undeclared(artefact: Artefact) -> frozenset[str]:
    """The tensors of its kind that this artefact's engine cannot honour."""
    if artefact.manifest.kind == "llm_api":
        return undeclared_tensors(read_options(artefact.path))
    return frozenset()


def _adapters(artefact: Artefact) -> str:
    """The parameter `lora_adapters`: task id -> where the adapter is."""
    adapters = artefact.manifest.adapters.items()
    return json.dumps(
        {str(one.task_id): {"name": name, "path": one.directory} for name, one in adapters}
    )
