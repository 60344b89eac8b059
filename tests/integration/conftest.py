"""A real server with a fake engine: one model `tiny` with a byte-level tokenizer, loaded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from frontend.limits import opening
from frontend.limits.lmdb_table import LmdbTable
from frontend.settings import Settings
from frontend.store.database import Database
from tests.fakes.access import Keys
from tests.fakes.artefacts import publish_model
from tests.fakes.engine import FakeEngine, FakeRepository
from tests.fakes.postgres import Postgres
from tests.fakes.server import RawClient, ServerThread
from tests.integration.redis_server import RedisServer
from tests.integration.stand_ins import StandIns


@pytest.fixture(scope="session", autouse=True)
def shared_memory() -> Iterator[Path]:
    """For limits, whatever home a server has: small, and gone when the tests are over."""
    with TemporaryDirectory(dir=opening.SHARED_MEMORY) as folder, pytest.MonkeyPatch.context() as m:
        m.setattr(opening, "SHARED_MEMORY", Path(folder))
        m.setattr(opening, "_table", lambda at: LmdbTable(at / "limits", map_bytes=2**20))
        yield Path(folder)


@pytest.fixture(scope="session")
def tiny_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("tiny-home")
    publish_model(home, "tiny", "q8_0")
    publish_model(home, "tiny", "f16")
    publish_model(home, "bare", "q8_0", chat_template=None)
    return home


@pytest.fixture
def tiny_settings(tiny_home: Path) -> Settings:
    return Settings(
        home=tiny_home,
        model="tiny",
        triton_metrics_url="127.0.0.1:1",  # nobody listens there
        max_body_bytes=2**20,
        keep_alive_interval_s=5.0,
    )


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine()
    engine.load("tiny")
    return engine


@pytest.fixture
def repository(engine: FakeEngine) -> FakeRepository:
    return FakeRepository(engine)


@pytest.fixture
def server(
    tiny_settings: Settings, engine: FakeEngine, repository: FakeRepository
) -> Iterator[ServerThread]:
    with ServerThread(tiny_settings, engine, repository) as running:
        yield running


@pytest.fixture
def closed_settings(tiny_settings: Settings, tmp_path: Path) -> Settings:
    """The same, but who asks has to have a key; with a database of its own."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(tiny_settings.home / "models", target_is_directory=True)
    return replace(tiny_settings, home=home, authentication="on")


@pytest.fixture
def keys(closed_settings: Settings) -> Keys:
    return Keys(closed_settings)


@pytest.fixture
def closed(
    closed_settings: Settings, engine: FakeEngine, repository: FakeRepository
) -> Iterator[ServerThread]:
    with ServerThread(closed_settings, engine, repository) as running:
        yield running


@pytest.fixture
def client(server: ServerThread) -> Iterator[RawClient]:
    with RawClient(server.address) as connection:
        yield connection


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIns]:
    """A Triton whose models of the GPU kinds run on stand-ins."""
    with StandIns(tmp_path_factory.mktemp("stand-ins")) as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state' / 'inflight.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await Database.open(database_url)
    yield database
    await database.close()


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A redis-server that a test leaves empty."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running
