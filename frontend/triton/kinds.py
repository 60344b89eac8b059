"""What each kind of engine wants in its config.pbtxt, of an artefact and of the settings."""

from __future__ import annotations

import json
from collections.abc import Mapping

from build_engines.artefacts.artefact import Artefact
from build_engines.gpu.launch import gpu_device_ids, parse_gpus
from frontend.settings import Settings
from frontend.triton.tensorrt_values import engine_values
from frontend.triton.tensors import RETURN_LOG_PROBS
from triton_models.llm_api.options import read_options, undeclared_tensors
from triton_models.render import Value


def values_of_kind(settings: Settings, artefact: Artefact) -> Mapping[str, Value]:
    match artefact.manifest.kind:
        case "cpu" | "llama_cpp":
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
            gpus = parse_gpus(settings.gpus).get(artefact.manifest.name)
            return {
                **engine_values(artefact),
                "max_queue_size": settings.max_queue_size,
                "gpu_device_ids": gpu_device_ids(gpus),
            }
        case "llm_api":
            return {
                "max_num_sequences": read_options(artefact.path)["max_batch_size"],
                "max_queue_size": settings.max_queue_size,
                "lora_adapters": _adapters(artefact),
            }
        case _:
            return {}


def undeclared(artefact: Artefact) -> frozenset[str]:
    """The tensors of its kind that this artefact's engine cannot honour."""
    if artefact.manifest.kind == "llm_api":
        return undeclared_tensors(read_options(artefact.path))
    engine = artefact.manifest.engine
    if (
        engine is not None
        and engine.drafting is not None
        and engine.drafting.mode == "draft_target"
    ):
        return frozenset({RETURN_LOG_PROBS.name})  # the layer that takes guesses writes none
    return frozenset()


def _adapters(artefact: Artefact) -> str:
    """The parameter `lora_adapters`: task id -> where the adapter is."""
    adapters = artefact.manifest.adapters.items()
    return json.dumps(
        {str(one.task_id): {"name": name, "path": one.directory} for name, one in adapters}
    )
