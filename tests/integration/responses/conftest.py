"""A server whose engine says hello, and an OpenAI client of it."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.fakes.engine import FakeEngine
from tests.fakes.server import ServerThread
from tests.integration.responses.asking import HELLO, sdk_of


@pytest.fixture(autouse=True)
def hello(engine: FakeEngine) -> None:
    engine.script = HELLO


@pytest.fixture
def sdk(server: ServerThread) -> Iterator[openai.OpenAI]:
    with sdk_of(server) as client:
        yield client
