from __future__ import annotations

import pytest

from frontend.errors import (
    ContextLengthExceeded,
    EngineUnavailable,
    GenerationFailed,
    InvalidParameter,
    ModelNotLoaded,
    ServerOverloaded,
    ServingError,
)
from frontend.triton.failures import error_of_message, error_of_status
from frontend.triton.grpc_status import GrpcCode, GrpcStatus
from triton_models import errors as engine


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (str(engine.PromptTooLongError(9, 8)), ContextLengthExceeded),
        (
            "Executor failed process requestId 3 due to the following error: Prompt length (9) "
            "exceeds maximum input length (8). Set log level to info",
            ContextLengthExceeded,
        ),
        (str(engine.QueueFullError()), ServerOverloaded),
        (str(engine.InvalidArgumentError("runtime_top_p", "too large")), InvalidParameter),
        (str(engine.UnsupportedTensorError("lora_task_id")), InvalidParameter),
        (str(engine.EngineClosedError()), ModelNotLoaded),
        ("Request for unknown model: 'm' is not found", ModelNotLoaded),
        ("Request for unknown model: 'm' has no available versions", ModelNotLoaded),
        ("Stub process 'm_0_0' is not healthy.", EngineUnavailable),
        (str(engine.EngineDiedError("CUDA error")), EngineUnavailable),
        ("Maximum queue size of 8 has been reached, please try again later", ServerOverloaded),
        ("anything else", GenerationFailed),
    ],
)
def test_text_of_the_engine_becomes_an_error(text: str, expected: type[ServingError]) -> None:
    assert type(error_of_message(text, "m")) is expected


def test_numbers_and_names_of_the_text_are_kept() -> None:
    too_long = error_of_message("Prompt length (9) exceeds maximum input length (8).", "m")
    assert too_long.values == {"num_tokens": 9, "max_tokens": 8}
    invalid = error_of_message("Invalid argument: runtime_top_p: must be below 1", "m")
    assert invalid.param == "top_p"
    assert "must be below 1" in str(invalid)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (GrpcCode.UNAVAILABLE, EngineUnavailable),
        (GrpcCode.CANCELLED, EngineUnavailable),
        (GrpcCode.DEADLINE_EXCEEDED, EngineUnavailable),
        (GrpcCode.RESOURCE_EXHAUSTED, ServerOverloaded),
        (GrpcCode.OK, GenerationFailed),
        (GrpcCode.INTERNAL, GenerationFailed),
    ],
)
def test_status_becomes_an_error(code: GrpcCode, expected: type[ServingError]) -> None:
    assert type(error_of_status(GrpcStatus(code, "words"), "m")) is expected
