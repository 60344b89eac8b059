"""Loads and unloads models: has their repository folders written, keeps state/loaded.json.

It knows artefacts and Triton's repository; nothing of tensors and requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from build_engines.artefacts.artefact import Artefact
from frontend.errors import ModelLoadFailed, ServingError
from frontend.settings import Settings
from frontend.triton.capabilities import Capabilities
from frontend.triton.desired import DesiredModels, FailedVersions, repository_lock
from frontend.triton.folders import (
    ModelFolder,
    read_model_folder,
    remove_other_versions,
    restore_model_folder,
    write_model_folder,
)
from frontend.triton.rpc import IndexEntry, TritonRpc
from frontend.types import LoadedModel

logger = logging.getLogger(__name__)

T = TypeVar("T")

LOCK_POLL_S = 0.05
UNLOAD_TIMEOUT_S = 20.0


class ModelRepository:
    """What Triton serves. Several worker processes may use it; changes are made one at a time."""

    def __init__(self, settings: Settings, rpc: TritonRpc, capabilities: Capabilities) -> None:
        self._settings = settings
        self._rpc = rpc
        self._capabilities = capabilities
        self._desired = DesiredModels(settings.home)
        self._failed = FailedVersions(settings.home)
        self._running: set[asyncio.Task[Any]] = set()

    async def load(self, artefact: Artefact) -> LoadedModel:
        """Serve this artefact under its model's name, in place of the variant served so far.

        Requests in work finish on what they began with.

        Raises:
            ModelLoadFailed: with Triton's reason; what was served before is served still.
            EngineUnavailable: Triton cannot be reached.
        """
        return await self._to_the_end(self._load(artefact))

    async def _to_the_end(self, change: Coroutine[object, object, T]) -> T:
        """Go on when the client has left: Triton does so, too."""
        task = asyncio.create_task(change)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _load(self, artefact: Artefact) -> LoadedModel:
        async with self._locked():
            await self._change(artefact)
        return await self._capabilities.get(artefact.manifest.name)

    async def follow(self, name: str, served: str, find: Callable[[], Artefact | None]) -> None:
        """Serve another version of what is served.

        Each worker of each frontend calls this when it sees that another version is current; the
        first does it. One that does not load is noted in FailedVersions.

        Args:
            served: the artefact's folder that is to be replaced.
            find: tells what is current when it is this caller's turn.
        """
        current = find()
        if current is not None and not self._failed.holds(current):
            await self._to_the_end(self._follow(name, served, find))

    async def _follow(self, name: str, served: str, find: Callable[[], Artefact | None]) -> None:
        async with self._locked():
            self._capabilities.invalidate(name)
            is_done = (await self._capabilities.get(name)).artefact_dir != served
            artefact = find()
            if artefact is None or is_done or self._failed.holds(artefact):
                return
            try:
                await self._change(artefact)
            except ServingError as exc:
                reason, *_trace = str(exc.values.get("reason", exc)).split("\n")
                has_died = not isinstance(exc, ModelLoadFailed)
                self._failed.add(artefact, reason, has_died=has_died)
                raise

    async def _change(self, artefact: Artefact) -> None:
        name = artefact.manifest.name
        before = read_model_folder(self._settings.home, name)
        write_model_folder(self._settings, artefact)
        try:
            await self._rpc.load_model(name)
        except ServingError:
            await self._restore(name, before)
            raise
        finally:
            self._capabilities.invalidate(name)
        remove_other_versions(self._settings.home, name)
        self._failed.forget(name)
        self._desired.add(name)
        logger.info("model loaded", extra={"model": name, "artefact": str(artefact.path)})

    async def unload(self, name: str) -> None:
        """Stop serving a model; returns when its memory is free, or after UNLOAD_TIMEOUT_S."""
        await self._to_the_end(self._unload(name))

    async def _unload(self, name: str) -> None:
        async with self._locked():
            self._desired.remove(name)
            try:
                await self._rpc.unload_model(name)
            finally:
                self._capabilities.invalidate(name)
            await self._wait_unloaded(name)
        logger.info("model unloaded", extra={"model": name})

    def wanted(self) -> list[str]:
        """Names of the models that Triton is to serve."""
        return self._desired.names()

    def failures(self) -> dict[str, dict[str, Any]]:
        """By model: the folder of a current version that did not load, and Triton's reason."""
        return self._failed.reasons()

    async def index(self) -> list[IndexEntry]:
        """All models of the repository, with their states."""
        return await self._rpc.repository_index()

    async def _restore(self, name: str, before: ModelFolder | None) -> None:
        """Bring back the folder; and the model, in case Triton has let go of it."""
        if before is None:
            shutil.rmtree(self._settings.home / "repository" / name, ignore_errors=True)
            return
        restore_model_folder(self._settings.home, name, before)
        remove_other_versions(self._settings.home, name)
        if name not in self._desired.names():
            return
        try:
            if not await self._rpc.model_ready(name):
                await self._rpc.load_model(name)
        except ServingError:  # the reason for the restoring is what the caller has to hear
            logger.exception("model not restored", extra={"model": name})

    async def _wait_unloaded(self, name: str) -> None:
        deadline_s = asyncio.get_running_loop().time() + UNLOAD_TIMEOUT_S
        while asyncio.get_running_loop().time() < deadline_s:
            states = {one.state for one in await self._rpc.repository_index() if one.name == name}
            if not states & {"READY", "UNLOADING"}:
                return
            await asyncio.sleep(LOCK_POLL_S)
        # Triton 2.51 now and then never lets go of a model; a restart frees what it holds.
        logger.error("model still unloading", extra={"model": name, "after_s": UNLOAD_TIMEOUT_S})

    @contextlib.asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        with repository_lock(self._settings.home).open("w") as lock:  # closing it releases the lock
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(LOCK_POLL_S)
            yield
