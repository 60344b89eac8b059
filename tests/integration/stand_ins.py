"""One Triton for the models of the GPU kinds, whose engines are stand-ins.

What loads them is the frontend's own repository: the folders are rendered as in production.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from build_engines.artefacts.artefact import Artefact
from frontend.settings import Settings
from frontend.triton.client import TritonClient
from frontend.triton.repository import ModelRepository
from frontend.triton.server import LOOPBACK, EmbeddedTriton, Ports
from frontend.types import LoadedModel
from tests.fakes import llm_api, trtllm_backend
from tests.integration.counter import free_ports
from tests.integration.tensor_client import TensorClient


class StandIns:
    """The running Triton and its home folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.ports: Ports = free_ports()
        self._triton = EmbeddedTriton(home, self.ports)

    def __enter__(self) -> StandIns:
        self._triton.start()
        trtllm_backend.install(self.home)
        return self

    def __exit__(self, *_: object) -> None:
        self._triton.stop()

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.ports.grpc}"

    def load(self, artefact: Artefact, *, max_queue_size: int = 256) -> LoadedModel:
        """As `POST /api/v1/models/{name}/load` does."""
        if artefact.manifest.kind == "llm_api":
            llm_api.install(self.home / "repository" / artefact.manifest.name)
        settings = Settings(home=self.home, max_queue_size=max_queue_size)
        return asyncio.run(self._load(artefact, settings))

    async def _load(self, artefact: Artefact, settings: Settings) -> LoadedModel:
        client = TritonClient(self.address)
        try:
            repository = ModelRepository(settings, client.rpc, client.capabilities)
            return await repository.load(artefact)
        finally:
            await client.close()

    def client(self, model: str, prompt: list[int]) -> TensorClient:
        return TensorClient(self.ports, model, prompt)
