"""What the loaded models can do, read from Triton's own configuration of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from frontend.errors import ModelNotLoaded
from frontend.triton.rpc import TritonRpc
from frontend.types import Drafting, LoadedModel, ModelLimits, ServedVersion

TOKENIZER_HASH = "tokenizer_hash"  # a parameter that `repository.py` adds to every model's
VOCABULARY = "vocabulary"  # likewise
TTL_S = 1.0  # another worker process may have loaded another variant


class Capabilities:
    """A cache of one worker process; asks Triton once for all requests that wait for a model."""

    def __init__(self, rpc: TritonRpc, *, ttl_s: float = TTL_S) -> None:
        self._rpc = rpc
        self._ttl_s = ttl_s
        self._known: dict[str, tuple[float, LoadedModel]] = {}
        self._asking: dict[str, asyncio.Task[LoadedModel]] = {}

    async def get(self, name: str) -> LoadedModel:
        """Return what the model can do now.

        Raises:
            ModelNotLoaded: Triton does not serve it, or it is no token model.
            EngineUnavailable: Triton cannot be reached.
        """
        known = self._known.get(name)
        if known is not None and asyncio.get_running_loop().time() < known[0]:
            return known[1]
        task = self._asking.get(name)
        if task is None:
            task = self._asking[name] = asyncio.create_task(self._ask(name))
            task.add_done_callback(lambda done: self._asked(name, done))
        # A caller that leaves must not end what others wait for.
        return await asyncio.shield(task)

    def invalidate(self, name: str) -> None:
        """Forget a model: it was loaded, unloaded, or a request of it failed."""
        self._known.pop(name, None)
        self._asking.pop(name, None)  # what is being answered now may be of before

    async def _ask(self, name: str) -> LoadedModel:
        model = loaded_model_of(await self._rpc.model_config(name))
        if self._asking.get(name) is asyncio.current_task():
            valid_until_s = asyncio.get_running_loop().time() + self._ttl_s
            self._known[name] = (valid_until_s, model)
        return model

    def _asked(self, name: str, task: asyncio.Task[LoadedModel]) -> None:
        if self._asking.get(name) is task:
            del self._asking[name]
        if not task.cancelled():
            task.exception()  # each caller has got it; perhaps none is left


def loaded_model_of(config: Any) -> LoadedModel:
    """Read tensor names and parameters out of a model_config_pb2.ModelConfig.

    Raises:
        ModelNotLoaded: the model has no limits, so it is none of ours.
    """
    parameters = {name: value.string_value for name, value in config.parameters.items()}
    try:
        limits = ModelLimits(
            max_seq_len=int(parameters["max_seq_len"]),
            max_input_len=int(parameters["max_input_len"]),
            vocab_size=int(parameters["vocab_size"]),
        )
        size = parameters.get("embedding_size")
        embedding_size = None if size is None else int(size)
        drafting = _drafting(parameters)
    except (KeyError, ValueError) as exc:
        raise ModelNotLoaded(model=config.name) from exc
    return LoadedModel(
        name=config.name,
        variant=parameters.get("variant", ""),
        limits=limits,
        inputs=frozenset(tensor.name for tensor in config.input),
        outputs=frozenset(tensor.name for tensor in config.output),
        embedding_size=embedding_size,
        artefact_dir=parameters.get("artefact_dir", ""),
        served=_served_version(config, parameters.get(TOKENIZER_HASH, "")),
        drafting=drafting,
        vocabulary=parameters.get(VOCABULARY, ""),
    )


def _drafting(parameters: Mapping[str, str]) -> Drafting | None:
    name = parameters.get("draft_model")
    return Drafting(model=name, max_tokens=int(parameters["max_draft_len"])) if name else None


def _served_version(config: Any, tokenizer_hash: str) -> ServedVersion | None:
    """The one version that the model's folder has; see `repository.py`."""
    numbers = config.version_policy.specific.versions
    if len(numbers) != 1:
        return None
    return ServedVersion(number=numbers[0], tokenizer_hash=tokenizer_hash)
