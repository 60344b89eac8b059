"""What is known of an HTTP request while it is served, and what the log says of it at its end.

Knows nothing of HTTP libraries; nothing of a prompt or an answer is kept.
"""

from __future__ import annotations

import logging
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frontend.access.identity import Identity
    from frontend.limits.gcra import Decision

logger = logging.getLogger("frontend.requests")

QUIET_PATHS = frozenset({"/health", "/api/v1/health", "/metrics", "/api/v1/metrics"})  # polled


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """One HTTP request; a batch has several generations in it, whose tokens are added up."""

    request_id: str
    method: str
    path: str
    address: str = ""  # of the client
    identity: Identity | None = None  # of who asks, once that is known
    decision: Decision | None = None  # of the limits, once they are asked
    decided_at: float = 0.0  # Unix seconds
    started: float = field(default_factory=time.perf_counter)
    status: int | None = None  # of the answer, once its head is made
    is_stream: bool = False
    model: str | None = None
    generation_id: str | None = None  # what the engine's log knows it by
    num_prompt_tokens: int = 0
    num_tokens: int = 0
    first_token_s: float | None = None
    outcome: str | None = None  # a finish reason, an error's code, or "cancelled"
    _is_logged: bool = False

    def elapsed_s(self) -> float:
        return time.perf_counter() - self.started

    def log(self) -> None:
        """Write the line, the first time it is called."""
        if self._is_logged:
            return
        self._is_logged = True
        fields: dict[str, object] = {
            "request_id": self.request_id,
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "duration_s": round(self.elapsed_s(), 4),
        }
        if self.outcome is not None:
            fields["outcome"] = self.outcome
        if self.model is not None:
            fields |= {
                "stream": self.is_stream,
                "model": self.model,
                "generation_id": self.generation_id,
                "prompt_tokens": self.num_prompt_tokens,
                "completion_tokens": self.num_tokens,
            }
        if self.first_token_s is not None:
            fields["first_token_s"] = round(self.first_token_s, 4)
        is_quiet = self.path in QUIET_PATHS and self.status == 200
        logger.log(logging.DEBUG if is_quiet else logging.INFO, "request served", extra=fields)


current_request: ContextVar[RequestRecord | None] = ContextVar("current_request", default=None)
