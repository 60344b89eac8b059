"""Loads and unloads models: renders their repository folders and keeps state/loaded.json.

It knows artefacts and Triton's repository; nothing of tensors and requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import shutil
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from build_engines.artefact import Artefact
from frontend.errors import ModelLoadFailed, ServingError
from frontend.settings import Settings
from frontend.triton.capabilities import Capabilities
from frontend.triton.desired import DesiredModels
from frontend.triton.rpc import IndexEntry, TritonRpc
from frontend.types import LoadedModel
from triton_models.llm_api.options import read_options, undeclared_tensors
from triton_models.render import Value, model_file, render_config

logger = logging.getLogger(__name__)

T = TypeVar("T")

LOCK_POLL_S = 0.05
UNLOAD_TIMEOUT_S = 20.0
_CONFIG = "config.pbtxt"
_MODEL = Path("1", "model.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folder:
    """The files of one model's folder; None: not there."""

    config: bytes | None
    model: bytes | None


class ModelRepository:
    """What Triton serves. Several worker processes may use it; changes are made one at a time."""

    def __init__(self, settings: Settings, rpc: TritonRpc, capabilities: Capabilities) -> None:
        self._settings = settings
        self._rpc = rpc
        self._capabilities = capabilities
        self._desired = DesiredModels(settings.home)
        self._lock_path = settings.home / "state" / "repository.lock"
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
        name = artefact.manifest.name
        async with self._locked():
            before = _read(self._settings.home, name)
            write_model_folder(self._settings, artefact)
            try:
                await self._rpc.load_model(name)
            except ServingError:
                await self._restore(name, before)
                raise
            finally:
                self._capabilities.invalidate(name)
            self._desired.add(name)
        logger.info("model loaded", extra={"model": name, "variant": artefact.manifest.variant})
        return await self._capabilities.get(name)

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

    async def index(self) -> list[IndexEntry]:
        """All models of the repository, with their states."""
        return await self._rpc.repository_index()

    async def _restore(self, name: str, before: _Folder) -> None:
        """Bring back the folder; and the model, in case Triton has let go of it."""
        _write(self._settings.home, name, before)
        if before.config is None or name not in self._desired.names():
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
        self._lock_path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock_path.open("w") as lock:  # closing it releases the lock
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(LOCK_POLL_S)
            yield


def write_model_folder(settings: Settings, artefact: Artefact) -> Path:
    """Render repository/<name>/ for an artefact; each file changes atomically. Return the folder.

    Raises:
        ModelLoadFailed: there is no engine of the artefact's kind here.
    """
    manifest = artefact.manifest
    try:
        values = {
            "model_name": manifest.name,
            "variant": manifest.variant,
            "artefact_dir": str(artefact.path),
            "max_seq_len": manifest.limits.max_seq_len,
            "max_input_len": manifest.limits.max_input_len,
            "vocab_size": manifest.limits.vocab_size,
            **_values_of_kind(settings, artefact),
        }
        config = render_config(manifest.kind, values, undeclared=_undeclared(artefact))
    except (ValueError, KeyError, OSError) as exc:
        raise ModelLoadFailed(model=manifest.name, reason=str(exc)) from exc
    source = model_file(manifest.kind)
    folder = _Folder(config=config.encode(), model=None if source is None else source.read_bytes())
    return _write(settings.home, manifest.name, folder)


def _values_of_kind(settings: Settings, artefact: Artefact) -> Mapping[str, Value]:
    path = artefact.path
    match artefact.manifest.kind:
        case "cpu":
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
            return {
                "engine_dir": str(path / "engine"),
                "tokenizer_dir": str(path / "tokenizer"),
                "xgrammar_tokenizer_info_path": str(path / "xgrammar_tokenizer_info.json"),
                "max_queue_size": settings.max_queue_size,
            }
        case "llm_api":
            max_num_sequences = read_options(path)["max_batch_size"]
            return {
                "max_num_sequences": max_num_sequences,
                "max_queue_size": settings.max_queue_size,
                "lora_adapters": _adapters(artefact),
            }
        case _:
            return {}


def _undeclared(artefact: Artefact) -> frozenset[str]:
    """The tensors of its kind that this artefact's engine cannot honour."""
    if artefact.manifest.kind == "llm_api":
        return undeclared_tensors(read_options(artefact.path))
    return frozenset()


def _adapters(artefact: Artefact) -> str:
    """The parameter `lora_adapters`: task id -> where the adapter is."""
    adapters = artefact.manifest.adapters.items()
    return json.dumps(
        {str(one.task_id): {"name": name, "path": one.directory} for name, one in adapters}
    )


def _read(home: Path, name: str) -> _Folder:
    folder = home / "repository" / name
    config, model = folder / _CONFIG, folder / _MODEL
    return _Folder(
        config=config.read_bytes() if config.is_file() else None,
        model=model.read_bytes() if model.is_file() else None,
    )


def _write(home: Path, name: str, contents: _Folder) -> Path:
    folder = home / "repository" / name
    if contents.config is None:
        shutil.rmtree(folder, ignore_errors=True)
        return folder
    (folder / _MODEL).parent.mkdir(parents=True, exist_ok=True)
    if contents.model is None:
        (folder / _MODEL).unlink(missing_ok=True)
    else:
        _replace(folder / _MODEL, contents.model)
    _replace(folder / _CONFIG, contents.config)
    return folder


def _replace(path: Path, contents: bytes) -> None:
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_bytes(contents)
    new.replace(path)
