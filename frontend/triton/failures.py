"""What Triton's, the engines' and gRPC's failures mean for the client. The one place for it."""

from __future__ import annotations

import re

from frontend.errors import (
    AdapterEvicted,
    ContextLengthExceeded,
    EngineUnavailable,
    GenerationFailed,
    InvalidParameter,
    ModelNotLoaded,
    ServerOverloaded,
    ServingError,
)
from frontend.triton.grpc_status import GrpcCode, GrpcStatus
from frontend.triton.tensors import param_of

_PROMPT_TOO_LONG = re.compile(r"Prompt length \((\d+)\) exceeds maximum input length \((\d+)\)")
_INVALID_ARGUMENT = re.compile(r"Invalid argument: (\w+): (.*)", re.DOTALL)
_UNSUPPORTED_TENSOR = re.compile(r"Unsupported tensor: (\w+)")
_QUEUE_FULL = re.compile(
    r"xceeds maximum queue size"  # Triton's, and our engines'
    r"|Maximum queue size of \d+ has been reached"  # TensorRT-LLM's executorImpl.cpp
)
_NOT_LOADED = re.compile(
    r"Request for unknown model|has no available versions|is not ready|The model is being unloaded"
)
# TensorRT-LLM 1.x, batch_manager/peftCacheManager.cpp
_ADAPTER_EVICTED = re.compile(r"LoRA task \d+ not found in cache")
_ADAPTERS_FULL = "Cache is full. There are no done tasks to evict"
_ENGINE_DIED = re.compile(
    r"[Ss]tub process|server is stopping|server is shutting down|engine has died"
)

_UNAVAILABLE_CODES = frozenset(
    {GrpcCode.UNAVAILABLE, GrpcCode.CANCELLED, GrpcCode.DEADLINE_EXCEEDED, GrpcCode.ABORTED}
)


def error_of_message(text: str, model: str) -> ServingError:
    """Translate the error_message of a response (the texts: triton_models/README.md)."""
    if match := _PROMPT_TOO_LONG.search(text):
        return ContextLengthExceeded(num_tokens=int(match[1]), max_tokens=int(match[2]))
    if match := _INVALID_ARGUMENT.search(text):
        return InvalidParameter(param_of(match[1]), "engine_refused", reason=match[2].strip())
    if match := _UNSUPPORTED_TENSOR.search(text):
        return InvalidParameter(param_of(match[1]), "unsupported", reason=match[0])
    if _QUEUE_FULL.search(text) or _ADAPTERS_FULL in text:
        return ServerOverloaded()
    if _ADAPTER_EVICTED.search(text):
        return AdapterEvicted()
    if _NOT_LOADED.search(text):
        return ModelNotLoaded(model=model)
    if _ENGINE_DIED.search(text):
        return EngineUnavailable()
    return GenerationFailed(reason=text)


def error_of_status(status: GrpcStatus, model: str) -> ServingError:
    """Translate the end of a call that should not have ended so."""
    if status.code in _UNAVAILABLE_CODES:
        return EngineUnavailable()
    if status.code is GrpcCode.OK:
        return GenerationFailed(reason="Triton ended the stream before the answer was complete")
    if status.code is GrpcCode.RESOURCE_EXHAUSTED:
        return ServerOverloaded()
    return error_of_message(status.message, model)
