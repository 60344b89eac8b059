"""What a worker's handlers work with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sanic import Request

from build_engines.artefacts.artefact import Artefact
from frontend.catalog import Catalog
from frontend.engine import Engine
from frontend.meter import Meter
from frontend.responses.background import BackgroundRuns
from frontend.settings import Settings
from frontend.store.api_keys import ApiKeyStore
from frontend.store.responses import ResponseStore
from frontend.store.usage import UsageStore
from frontend.telemetry.metrics import Metrics
from frontend.types import LoadedModel

if TYPE_CHECKING:
    from frontend.access.authenticator import Authenticator


class ModelRepository(Protocol):
    """Changes which models the engine serves."""

    async def load(self, artefact: Artefact) -> LoadedModel:
        """Serve this variant; it takes the place of the one that is loaded.

        Raises:
            ModelLoadFailed: with the engine's reason; what was loaded before stays.
            EngineUnavailable: the engine cannot be reached.
        """
        ...

    async def follow(self, name: str, served: str, find: Callable[[], Artefact | None]) -> None:
        """Serve what `find` says in place of the folder `served`, unless that has been done.

        Raises:
            ModelLoadFailed: it is not tried again; what was loaded before stays.
            EngineUnavailable: the engine cannot be reached.
        """
        ...

    def wanted(self) -> list[str]:
        """Names of the models that are to be served."""
        ...

    def failures(self) -> dict[str, dict[str, Any]]:
        """By model: `path` and `reason` of a current version that did not load."""
        ...

    async def unload(self, name: str) -> None:
        """Stop serving a model; one that is not loaded is left so."""
        ...


@dataclass(slots=True, kw_only=True)
class Context:
    """One worker's; `engine` and `repository` are opened when its event loop runs."""

    settings: Settings
    catalog: Catalog
    metrics: Metrics
    meter: Meter
    engine: Engine
    repository: ModelRepository
    responses: ResponseStore
    background: BackgroundRuns
    authenticator: Authenticator | None  # None: nobody has to say who they are
    api_keys: ApiKeyStore
    usage: UsageStore
    root_pid: int  # the process that started this installation's processes
    is_stopping: bool = False  # requests in work are let end; no more are taken


def context_of(request: Request) -> Context:
    context: Context = request.app.ctx.serving
    return context
