"""Keeps the engine on the current versions: what is published or rolled back while we serve is
loaded in place of what is served, as soon as a worker sees it.

Requests in work finish on the version that they began with.
"""

from __future__ import annotations

import asyncio
import functools
import logging

from build_engines.errors import ArtefactError
from frontend.catalog import Catalog
from frontend.context import ModelRepository
from frontend.engine import Engine
from frontend.errors import ServingError, Unavailable

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0


class VersionFollower:
    """One worker's; all workers look, and the first that has the repository's lock acts."""

    def __init__(self, catalog: Catalog, engine: Engine, repository: ModelRepository) -> None:
        self._catalog = catalog
        self._engine = engine
        self._repository = repository
        self._said: dict[str, str] = {}  # what was last logged of a model
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop looking; a load that has begun goes on to its end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def look(self) -> None:
        """Bring every model that is served to its current version."""
        for name in self._repository.wanted():
            try:
                loaded = await self._engine.loaded_model(name)
                if self._catalog.current(loaded) is not None:
                    await self._repository.follow(
                        name, loaded.artefact_dir, functools.partial(self._catalog.current, loaded)
                    )
                self._said.pop(name, None)
            except Unavailable:  # not loaded (yet), or the engine is away: nothing to replace
                continue
            except (ArtefactError, ServingError) as exc:
                self._say(name, str(exc))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.look()
            except Exception:  # whatever it is, the next look may go well
                logger.exception("current versions not followed")

    def _say(self, name: str, reason: str) -> None:
        """Log each trouble once: it is met at every look."""
        if self._said.get(name) != reason:
            self._said[name] = reason
            logger.error("version not taken", extra={"model": name, "reason": reason})
