"""The errors that a request can meet. Their texts are part of the contract: the frontend maps them.

EngineError
├── PromptTooLongError
├── QueueFullError
├── InvalidArgumentError
├── UnsupportedTensorError
├── EngineClosedError
└── EngineDiedError
"""

from __future__ import annotations


class EngineError(Exception):
    """A request that the engine refused or could not finish."""


class PromptTooLongError(EngineError):
    """The wording is TensorRT-LLM's."""

    def __init__(self, num_tokens: int, max_input_len: int) -> None:
        super().__init__(
            f"Prompt length ({num_tokens}) exceeds maximum input length ({max_input_len})."
        )


class QueueFullError(EngineError):
    """As many requests wait as the engine may hold back."""

    def __init__(self) -> None:
        super().__init__("Exceeds maximum queue size")


class InvalidArgumentError(EngineError):
    """A tensor has a value that no request may have."""

    def __init__(self, tensor: str, why: str) -> None:
        super().__init__(f"Invalid argument: {tensor}: {why}")


class UnsupportedTensorError(EngineError):
    """A tensor asks for something that this engine does not do."""

    def __init__(self, tensor: str) -> None:
        super().__init__(f"Unsupported tensor: {tensor}")


class EngineClosedError(EngineError):
    """The engine was unloaded before the request ended."""

    def __init__(self) -> None:
        super().__init__("The model is being unloaded")


class EngineDiedError(EngineError):
    """What runs the model has died; it is being started again."""

    def __init__(self, why: str) -> None:
        super().__init__(f"The engine has died and is being started again: {why}")
