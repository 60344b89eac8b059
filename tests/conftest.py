"""Fixtures that all levels share: the default model, built once and kept between runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from build_engines.artefacts.artefact import SCHEMA_VERSION, Artefact
from build_engines.artefacts.versions import current_version, make_current
from build_engines.pipeline import build
from frontend.limits.opening import shared_folder
from tests.golden_files import Golden

DEFAULT_MODEL = "smollm2-135m-instruct"

# How long an example takes says how busy the machine is, not whether it is right.
settings.register_profile("busy", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("busy")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write tests/golden anew from what is sent"
    )
    parser.addoption(
        "--kills",
        type=int,
        default=0,
        help="kill -9 so many workers in each test of exact limits, all started anew (0: a few)",
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(is_update=bool(request.config.getoption("--update-golden")))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests reaches them."""
    for name in list(os.environ):
        if name.startswith("INFLIGHT_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def no_shared_memory_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The limits of each home from which a test has started a server take some of it."""
    yield
    for state in tmp_path_factory.getbasetemp().glob("**/state"):
        shutil.rmtree(shared_folder(state.parent), ignore_errors=True)


@pytest.fixture(scope="session")
def built_models(request: pytest.FixtureRequest) -> Path:
    """A home folder whose default model is built; not to be written to."""
    home = Path(str(request.config.cache.mkdir(f"home-{SCHEMA_VERSION}")))
    build(DEFAULT_MODEL, None, home)
    return home


@pytest.fixture(scope="session")
def artefact(built_models: Path) -> Artefact:
    """The default variant of the default model."""
    return build(DEFAULT_MODEL, None, built_models)


@pytest.fixture(scope="session")
def home(built_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session's own home folder: state is its own, the weights are links to the built ones."""
    folder = tmp_path_factory.mktemp("home")
    return link_models(built_models, folder)


def link_models(built: Path, home: Path) -> Path:
    """Make `home` have the built models without a second copy of their weights."""
    for variant in built.glob("models/*/[!.]*"):  # not what a build has in work
        version = current_version(variant)
        if version is not None:
            target = home / variant.relative_to(built)
            target.mkdir(parents=True)
            (target / str(version)).symlink_to(variant / str(version), target_is_directory=True)
            make_current(target, version)
    return home
