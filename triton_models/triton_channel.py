"""A decoupled request's responses, over Triton's Python API; for the `1/model.py` of our kinds.

Can only be imported inside Triton's Python stub, which gives `triton_python_backend_utils`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonChannel:
    """Implements `triton_models.channel.Channel`; `requested` are the outputs that are wanted."""

    def __init__(self, sender: Any, requested: frozenset[str]) -> None:
        self._sender = sender
        self._requested = requested

    def send(self, outputs: Mapping[str, NDArray[Any]], *, is_final: bool) -> None:
        """See Channel."""
        # Made anew each time: with responses that were kept and sent again, Triton 2.51 crashed
        # under load each time it was tried.
        response = pb_utils.InferenceResponse(
            [pb_utils.Tensor(k, v) for k, v in outputs.items() if k in self._requested]
        )
        if is_final:
            self._end(response)
        else:
            self._sender.send(response)

    def send_error(self, message: str) -> None:
        """See Channel."""
        self._end(pb_utils.InferenceResponse(error=pb_utils.TritonError(message)))

    def is_cancelled(self) -> bool:
        """See Channel."""
        return bool(self._sender.is_cancelled())

    def _end(self, response: Any) -> None:
        """Triton 2.51 never unloads a model that keeps the sender of a request that has ended."""
        if self._sender is None:
            raise RuntimeError("the request has had its final response")
        self._sender.send(response, flags=FINAL)
        self._sender = None
