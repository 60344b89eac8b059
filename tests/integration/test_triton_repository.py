"""Loading and unloading, with the real templates and the fake Triton."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from build_engines.artefacts.artefact import (
    SCHEMA_VERSION,
    Artefact,
    Limits,
    Manifest,
    SpecialTokens,
)
from frontend.errors import EngineUnavailable, ModelLoadFailed, ModelNotLoaded
from frontend.settings import Settings
from frontend.triton.client import TritonClient
from frontend.triton.desired import DesiredModels
from frontend.triton.folders import write_model_folder
from frontend.triton.repository import ModelRepository
from tests.fakes.triton import FakeModel, FakeTriton


def artefact(variant: str = "q8_0", kind: str = "cpu", version: int = 1) -> Artefact:
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name="fake",
        variant=variant,
        kind=kind,
        format="gguf",
        quantization=variant,
        source={},
        tools={},
        files={},
        size_bytes=1,
        limits=Limits(max_seq_len=2048, max_input_len=2047, vocab_size=1000),
        tokens=SpecialTokens(bos_id=1, eos_ids=[2], pad_id=None),
        created="2026-01-01T00:00:00Z",
        memory_bytes=None,
    )
    path = Path("/models/fake") / variant / str(version)
    return Artefact(manifest=manifest, path=path, content_hash=f"{variant} {version}")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, kv_cache_bytes=12 * 2**20)


@pytest.fixture
async def triton() -> AsyncIterator[FakeTriton]:
    async with FakeTriton(FakeModel(is_loaded=False)) as triton:
        yield triton


@pytest.fixture
async def client(triton: FakeTriton) -> AsyncIterator[TritonClient]:
    client = TritonClient(triton.url)
    yield client
    await client.close()


@pytest.fixture
def repository(settings: Settings, client: TritonClient) -> ModelRepository:
    return ModelRepository(settings, client.rpc, client.capabilities)


def config_of(settings: Settings) -> str:
    return (settings.home / "repository" / "fake" / "config.pbtxt").read_text()


async def test_load_renders_the_folder_and_remembers_the_model(
    settings: Settings, repository: ModelRepository
) -> None:
    model = await repository.load(artefact())
    assert model.name == "fake"
    config = config_of(settings)
    assert 'name: "fake"' in config
    assert '"/models/fake/q8_0/1"' in config
    assert str(12 * 2**20) in config
    assert (settings.home / "repository" / "fake" / "1" / "model.py").is_file()
    assert DesiredModels(settings.home).names() == ["fake"]
    assert [(entry.name, entry.state) for entry in await repository.index()] == [("fake", "READY")]


async def test_unload_forgets_the_model(
    settings: Settings, repository: ModelRepository, client: TritonClient
) -> None:
    await repository.load(artefact())
    await repository.unload("fake")
    assert DesiredModels(settings.home).names() == []
    with pytest.raises(ModelNotLoaded):
        await client.loaded_model("fake")


async def test_variant_that_fails_leaves_the_earlier_one(
    settings: Settings, repository: ModelRepository, triton: FakeTriton
) -> None:
    await repository.load(artefact())
    before = config_of(settings)
    triton.models["fake"].load_failure = "out of memory"
    with pytest.raises(ModelLoadFailed, match="out of memory"):
        await repository.load(artefact("f16"))
    assert config_of(settings) == before
    assert DesiredModels(settings.home).names() == ["fake"]


async def test_model_that_triton_let_go_of_is_loaded_again(
    settings: Settings, repository: ModelRepository, triton: FakeTriton
) -> None:
    await repository.load(artefact())
    triton.models["fake"].load_failure = "out of memory"
    triton.models["fake"].is_loaded = False
    with pytest.raises(ModelLoadFailed):
        await repository.load(artefact("f16"))
    assert not triton.models["fake"].is_loaded  # it could not be: the reason was told all the same


async def test_first_load_that_fails_leaves_no_folder(
    settings: Settings, repository: ModelRepository, triton: FakeTriton
) -> None:
    triton.models["fake"].load_failure = "broken"
    with pytest.raises(ModelLoadFailed):
        await repository.load(artefact())
    assert not (settings.home / "repository" / "fake").exists()
    assert DesiredModels(settings.home).names() == []


async def test_load_goes_on_when_its_client_leaves(
    settings: Settings, repository: ModelRepository
) -> None:
    loading = asyncio.create_task(repository.load(artefact()))
    await asyncio.sleep(0)
    loading.cancel()
    async with asyncio.timeout(5):
        while DesiredModels(settings.home).names() != ["fake"]:  # noqa: ASYNC110, no event for it
            await asyncio.sleep(0.01)


async def test_load_without_a_triton_is_unavailable(
    repository: ModelRepository, triton: FakeTriton
) -> None:
    await triton.stop()
    with pytest.raises(EngineUnavailable):
        await repository.load(artefact())


async def test_loads_at_once_are_made_one_after_the_other(
    settings: Settings, repository: ModelRepository
) -> None:
    variants = [f"v{i}" for i in range(8)]
    await asyncio.gather(*(repository.load(artefact(variant)) for variant in variants))
    assert any(f'"/models/fake/{variant}/1"' in config_of(settings) for variant in variants)


async def test_another_version_is_taken_once_by_whoever_comes_first(
    settings: Settings, repository: ModelRepository, triton: FakeTriton
) -> None:
    await repository.load(artefact())
    served = triton.models["fake"].artefact_dir = "/models/fake/q8_0/1"
    looks = []

    def find() -> Artefact:
        looks.append(1)
        return artefact("q8_0", version=2)

    await repository.follow("fake", served, find)
    assert '"/models/fake/q8_0/2"' in config_of(settings)
    triton.models["fake"].artefact_dir = "/models/fake/q8_0/2"
    before = config_of(settings)
    await repository.follow("fake", served, find)
    assert config_of(settings) == before, "another worker has done it"
    assert (settings.home / "repository" / "fake" / "2" / "model.py").is_file()
    assert not (settings.home / "repository" / "fake" / "1").exists()


async def test_a_version_that_does_not_load_is_tried_once_and_noted(
    settings: Settings, repository: ModelRepository, triton: FakeTriton
) -> None:
    await repository.load(artefact())
    model = triton.models["fake"]
    model.artefact_dir, model.load_failure = "/models/fake/q8_0/1", "out of memory"
    before = config_of(settings)
    with pytest.raises(ModelLoadFailed, match="out of memory"):
        await repository.follow("fake", model.artefact_dir, lambda: artefact(version=2))
    assert config_of(settings) == before
    failure = repository.failures()["fake"]
    assert failure["path"] == "/models/fake/q8_0/2"
    assert "out of memory" in failure["reason"]
    model.load_failure = None
    await repository.follow("fake", model.artefact_dir, lambda: artefact(version=2))
    assert config_of(settings) == before
    await repository.load(artefact(version=2))
    assert repository.failures() == {}


async def test_a_version_over_which_triton_dies_is_not_tried_for_ever(
    settings: Settings,
    repository: ModelRepository,
    client: TritonClient,
    triton: FakeTriton,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await repository.load(artefact())
    served = triton.models["fake"].artefact_dir = "/models/fake/q8_0/1"
    before, deaths = config_of(settings), []

    async def die(name: str) -> None:
        deaths.append(name)
        raise EngineUnavailable

    monkeypatch.setattr(client.rpc, "load_model", die)
    for _ in range(3):
        with pytest.raises(EngineUnavailable):
            await repository.follow("fake", served, lambda: artefact(version=2))
        assert config_of(settings) == before, "what Triton starts again with"
    await repository.follow("fake", served, lambda: artefact(version=2))
    assert len(deaths) == 3
    with pytest.raises(EngineUnavailable):
        await repository.follow("fake", served, lambda: artefact("f16", version=3))


def test_engine_that_is_not_there_is_said(settings: Settings) -> None:
    with pytest.raises(ModelLoadFailed, match="unknown"):
        write_model_folder(settings, artefact(kind="unknown"))


def test_folder_of_a_tensorrt_llm_engine_has_no_python(settings: Settings) -> None:
    folder = write_model_folder(settings, artefact())
    assert (folder / "1" / "model.py").is_file()
    write_model_folder(settings, artefact(kind="tensorrt_llm"))
    assert not (folder / "2" / "model.py").exists()
    assert (folder / "2").is_dir()
    assert '"/models/fake/q8_0/1/engine"' in config_of(settings)


def test_settings_of_the_engine_reach_its_configuration(settings: Settings) -> None:
    write_model_folder(replace(settings, num_threads=3, max_queue_size=17), artefact())
    config = config_of(settings)
    assert 'key: "num_threads" value: { string_value: "3" }' in config
    assert 'key: "max_queue_size" value: { string_value: "17" }' in config


async def test_lock_excludes_other_processes(
    settings: Settings, repository: ModelRepository
) -> None:
    await repository.load(artefact())
    lock = str(settings.home / "state" / "repository.lock")
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(lock, held, release))
    other.start()
    assert await asyncio.to_thread(held.wait, 20)
    loading = asyncio.create_task(repository.load(artefact("f16")))
    await asyncio.sleep(0.2)
    assert not loading.done()
    release.set()
    await loading
    other.join()
    assert '"/models/fake/f16/1"' in config_of(settings)


def _hold(path: str, held: multiprocessing.Event, release: multiprocessing.Event) -> None:  # type: ignore[valid-type]
    import fcntl

    with Path(path).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        held.set()  # type: ignore[attr-defined]
        release.wait(20)  # type: ignore[attr-defined]
