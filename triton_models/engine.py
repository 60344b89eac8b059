"""What the service needs of an engine: requests in, token events out, however it batches."""

from __future__ import annotations

from typing import Protocol

from triton_models.request import EngineRequest


class Engine(Protocol):
    """Runs requests together. The methods may be called from any thread."""

    def submit(self, request: EngineRequest) -> int:
        """Takes a request on; returns the handle to cancel it by.

        Raises EngineError for what can be said at once (too long a prompt, a full queue);
        afterwards errors come as events.
        """
        ...

    def cancel(self, handle: int) -> None:
        """Ends a request with one more event, soon; one that has ended is left alone."""
        ...

    def close(self) -> None:
        """Ends all requests with an error, and the engine's threads."""
        ...
