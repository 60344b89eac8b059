"""Workers bring what is served to its current version; whatever goes wrong is said once."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from build_engines.artefacts.artefact import Artefact
from build_engines.artefacts.retention import remove, rollback
from frontend import following
from frontend.catalog import Catalog
from frontend.errors import ModelLoadFailed
from frontend.following import VersionFollower
from tests.fakes.artefacts import publish_model
from tests.fakes.engine import FakeEngine, FakeRepository


class Setup:
    """A home whose first version is served."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.engine = FakeEngine()
        self.repository = FakeRepository(self.engine)
        self.catalog = Catalog(home, default_model="tiny")
        self.follower = VersionFollower(self.catalog, self.engine, self.repository)
        self.serve(self.publish(1))

    def publish(self, number: int) -> Artefact:
        return publish_model(self.home, "tiny", bos_id=number)

    def serve(self, artefact: Artefact) -> None:
        loaded = self.engine.load("tiny")
        self.engine.models["tiny"] = replace(loaded, artefact_dir=str(artefact.path))

    @property
    def version(self) -> int:
        return self.catalog.served(self.engine.models["tiny"]).manifest.version


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    setup = Setup(tmp_path)
    setup.repository.on_load = setup.serve
    return setup


async def test_a_publication_and_a_rollback_are_followed(setup: Setup) -> None:
    await setup.follower.look()
    assert setup.version == 1
    setup.publish(2)
    await setup.follower.look()
    assert setup.version == 2
    rollback(setup.home, "tiny", "q8_0")
    await setup.follower.look()
    assert setup.version == 1


async def test_a_variant_that_is_removed_is_served_on(setup: Setup) -> None:
    assert setup.version == 1
    remove(setup.home, "tiny", "q8_0")
    await setup.follower.look()
    assert setup.engine.models["tiny"].artefact_dir.endswith("/q8_0/1")


@pytest.mark.parametrize("trouble", ["damaged", "refused"])
async def test_what_goes_wrong_is_said_once(
    setup: Setup, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    second = setup.publish(2)
    if trouble == "damaged":
        (second.path / "manifest.json").unlink()
    else:
        setup.repository.failure = ModelLoadFailed(model="tiny", reason="out of memory")
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            await setup.follower.look()
    # Others may log meanwhile: tasks that earlier tests have left to the garbage collector, say.
    own = [record.message for record in caplog.records if record.name == following.__name__]
    assert own == ["version not taken"]
    assert setup.version == 1


async def test_a_model_that_is_not_loaded_is_left_alone(setup: Setup) -> None:
    setup.publish(2)
    setup.engine.is_up = False
    await setup.follower.look()
    setup.engine.is_up = True
    assert setup.version == 1
