"""The weights of LoRA adapters, and which loads of a model have been sent them.

An engine has to be sent an adapter with the first request for it, and again after it has thrown
the adapter out of its cache; it says so by an error.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from build_engines.lora.files import CONFIG_NAME, WEIGHTS_NAME
from frontend.errors import GenerationFailed
from frontend.types import GenerationRequest, LoadedModel, ServedVersion

MAX_REMEMBERED = 4096
LORA_WEIGHTS = "lora_weights"  # the tensor; an engine without it reads adapters by itself

_Key = tuple[str, ServedVersion | None, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterWeights:
    """An adapter's arrays as bytes; `shape` is that of the weights, [rows, width]."""

    shape: tuple[int, int]
    weights: bytes  # float16
    config: bytes  # int32 [rows, 3]


class SentAdapters:
    """What one worker has sent; what another has sent before is sent again, which does no harm.

    Of requests that need the same weights at once one takes them, and the others wait for it.
    """

    def __init__(self) -> None:
        self._sent: dict[_Key, None] = {}
        self._sending: dict[_Key, asyncio.Future[None]] = {}

    async def weights_for(
        self, request: GenerationRequest, model: LoadedModel
    ) -> AdapterWeights | None:
        """What has to go with a request; None: nothing, or the engine reads adapters by itself.

        Who gets weights calls `settle`, whatever becomes of the request.

        Raises:
            GenerationFailed: the adapter's files cannot be read.
        """
        if request.adapter is None or LORA_WEIGHTS not in model.inputs:
            return None
        key = _key(request, model)
        while key not in self._sent:
            if key not in self._sending:
                self._sending[key] = asyncio.get_running_loop().create_future()
                try:
                    return await asyncio.to_thread(_read, Path(request.adapter.directory))
                except BaseException:
                    self.settle(request, model)
                    raise
            await asyncio.wait((self._sending[key],))
        return None

    def has_sent(self, request: GenerationRequest, model: LoadedModel) -> None:
        """The engine answers a request for its adapter: it has the weights."""
        self._sent[_key(request, model)] = None
        if len(self._sent) > MAX_REMEMBERED:
            del self._sent[next(iter(self._sent))]

    def forget(self, request: GenerationRequest, model: LoadedModel) -> None:
        """The engine has thrown the adapter out."""
        self._sent.pop(_key(request, model), None)

    def settle(self, request: GenerationRequest, model: LoadedModel) -> None:
        """The request that took the weights is over, or has begun: whoever waits may go on."""
        waiting = self._sending.pop(_key(request, model), None)
        if waiting is not None:
            waiting.set_result(None)


def _key(request: GenerationRequest, model: LoadedModel) -> _Key:
    assert request.adapter is not None
    return model.name, model.served, request.adapter.task_id


def _read(directory: Path) -> AdapterWeights:
    try:
        weights = np.load(directory / WEIGHTS_NAME, allow_pickle=False)
        config = np.load(directory / CONFIG_NAME, allow_pickle=False)
        rows, width = weights.shape
    except (OSError, ValueError) as exc:
        raise GenerationFailed(reason=f"the adapter cannot be read: {exc}") from exc
    return AdapterWeights(
        shape=(rows, width),
        weights=weights.astype("<f2", copy=False).tobytes(),
        config=config.astype("<i4", copy=False).tobytes(),
    )
