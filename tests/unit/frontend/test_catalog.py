from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from build_engines.spec import buildable_variants
from frontend import catalog as catalog_module
from frontend import loading
from frontend.catalog import Catalog, CatalogModel
from frontend.errors import ModelLoadFailed, ModelNotFound, VariantNotFound
from tests.fakes.artefacts import publish_model
from tests.fakes.engine import FakeEngine, FakeRepository


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def catalog_of(home: Path) -> Catalog:
    return Catalog(home, default_model="tiny")


def model_with(home: Path, *variants: tuple[str, str]) -> CatalogModel:
    for variant, kind in variants:
        publish_model(home, "tiny", variant, kind=kind)
    return catalog_of(home).get("tiny")


def test_models_stand_by_name_with_their_variants(home: Path) -> None:
    for name, variant in (("b", "q8_0"), ("a", "q8_0"), ("b", "f16")):
        publish_model(home, name, variant)
    models = catalog_of(home).models()
    assert [(m.name, m.variants) for m in models] == [("a", ["q8_0"]), ("b", ["f16", "q8_0"])]


def test_an_empty_home_has_no_models(home: Path) -> None:
    assert catalog_of(home).models() == []


@pytest.mark.parametrize("name", [None, "", "default", "tiny"])
def test_the_default_model_has_several_names(home: Path, name: str | None) -> None:
    publish_model(home, "tiny")
    publish_model(home, "other")
    assert catalog_of(home).get(name).name == "tiny"


@pytest.mark.parametrize("name", ["nowhere", "../tiny", "tiny/q8_0", "Tiny", "你", "a\0b"])
def test_a_model_that_is_not_there_is_named(home: Path, name: str) -> None:
    publish_model(home, "tiny")
    with pytest.raises(ModelNotFound) as caught:
        catalog_of(home).get(name)
    assert caught.value.values["model"] == name
    assert caught.value.param == "model"


def test_a_default_model_that_is_not_there_is_named_too(home: Path) -> None:
    with pytest.raises(ModelNotFound, match="'tiny'"):
        catalog_of(home).get(None)


def test_a_model_built_later_is_seen(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "RESCAN_S", 0.0)
    catalog = catalog_of(home)
    assert catalog.models() == []
    publish_model(home, "tiny")
    assert catalog.get("tiny").name == "tiny"


def test_the_disk_is_not_read_for_every_unknown_name(home: Path) -> None:
    catalog = catalog_of(home)
    with pytest.raises(ModelNotFound):
        catalog.get("tiny")
    publish_model(home, "tiny")
    with pytest.raises(ModelNotFound):
        catalog.get("tiny")
    catalog.rescan()
    assert catalog.get("tiny").name == "tiny"


def test_a_tokenizer_is_read_once(home: Path) -> None:
    artefact = publish_model(home, "tiny")
    catalog = catalog_of(home)
    assert catalog.tokenizer(artefact) is catalog.tokenizer(artefact)


def test_a_variant_that_is_gone_is_stood_for_by_another(home: Path) -> None:
    model = model_with(home, ("f16", "cpu"), ("q8_0", "cpu"))
    assert model.artefact("q8_0").manifest.variant == "q8_0"
    assert model.artefact("gone").manifest.variant == "f16"


BOTH = (
    ("f16", "cpu"),
    ("q4_0", "cpu"),
    ("q8_0", "cpu"),
    ("fp8", "tensorrt_llm"),
    ("bf16", "llm_api"),
)


@pytest.mark.parametrize(
    ("quantization", "prefer_gpu", "has_gpu", "chosen"),
    [
        (None, False, False, "q8_0"),
        (None, False, True, "q8_0"),
        (None, True, False, "q8_0"),
        (None, True, True, "bf16"),
        ("q4_0", False, False, "q4_0"),
        ("q4_0", True, True, "q4_0"),
        ("fp8", True, True, "fp8"),
        ("fp8", False, True, "fp8"),
    ],
)
def test_the_variant_that_fits_is_chosen(
    home: Path, quantization: str | None, prefer_gpu: bool, has_gpu: bool, chosen: str
) -> None:
    model = model_with(home, *BOTH)
    artefact = model.choose(quantization=quantization, prefer_gpu=prefer_gpu, has_gpu=has_gpu)
    assert artefact.manifest.variant == chosen


@pytest.mark.parametrize("quantization", ["fp8", "q2_k", "", "../q8_0", "Q8_0"])
def test_nothing_that_fits_names_the_variants_there_are(home: Path, quantization: str) -> None:
    model = model_with(home, *BOTH)
    with pytest.raises(VariantNotFound) as caught:
        model.choose(quantization=quantization, prefer_gpu=True, has_gpu=False)
    assert "bf16, f16, fp8, q4_0, q8_0" in str(caught.value)


def test_variants_that_could_be_built_are_named_too(home: Path) -> None:
    model = model_with(home, ("q8_0", "cpu"))
    with pytest.raises(VariantNotFound, match="q4_0, q8_0"):
        model.choose(quantization="x", prefer_gpu=False, has_gpu=False, buildable=("q4_0",))


def test_a_model_with_gpu_variants_only_does_not_fit_a_machine_without(home: Path) -> None:
    model = model_with(home, ("fp8", "tensorrt_llm"))
    with pytest.raises(VariantNotFound, match="fits this machine; there are: fp8"):
        model.choose(quantization=None, prefer_gpu=False, has_gpu=False)


class Loader:
    """load_variant with a fake engine, and without builds that are not asked for."""

    def __init__(self, home: Path) -> None:
        self.engine = FakeEngine()
        self.repository = FakeRepository(self.engine)
        self.home = home
        self.catalog = catalog_of(home)

    async def load(self, name: str, quantization: str | None = None, *, gpu: bool = False) -> str:
        artefact = await loading.load_variant(
            self.catalog, self.repository, home=self.home, name=name,
            quantization=quantization, prefer_gpu=gpu,
        )  # fmt: skip
        return artefact.manifest.variant


async def test_loading_serves_the_chosen_variant(home: Path) -> None:
    model_with(home, *BOTH)
    loader = Loader(home)
    assert await loader.load("tiny", "q4_0") == "q4_0"
    assert loader.engine.models["tiny"].variant == "q4_0"


async def test_a_gpu_variant_is_loaded_where_a_gpu_is(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_with(home, ("q8_0", "cpu"), ("fp8", "tensorrt_llm"))
    assert await Loader(home).load("tiny", gpu=True) == "q8_0"
    monkeypatch.setattr(loading, "has_gpu", lambda: True)
    assert await Loader(home).load("tiny", gpu=True) == "fp8"


async def test_loading_sees_what_was_built_a_moment_ago(home: Path) -> None:
    model_with(home, ("q8_0", "cpu"))
    loader = Loader(home)
    loader.catalog.models()
    publish_model(home, "tiny", "awq")
    assert await loader.load("tiny", "awq") == "awq"


@pytest.mark.parametrize("name", ["nowhere", "..", "../../etc/passwd", "a/b", "", "\0"])
async def test_loading_what_does_not_exist_touches_nothing(home: Path, name: str) -> None:
    loader = Loader(home)
    with pytest.raises(ModelNotFound):
        await loader.load(name, "q8_0")
    assert loader.engine.models == {}
    assert os.listdir(home) == []


async def test_a_failed_load_is_told(home: Path) -> None:
    model_with(home, ("q8_0", "cpu"))
    loader = Loader(home)
    loader.repository.failure = ModelLoadFailed(model="tiny", reason="no memory")
    with pytest.raises(ModelLoadFailed, match="no memory"):
        await loader.load("tiny")


async def test_a_variant_that_can_be_built_is_built_in_a_process_of_its_own(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "buildable_variants", lambda name: ("q4_0",))
    made = publish_model(home / "workshop", "tiny", "q4_0").path.parent
    script = f"mkdir -p {home}/models/tiny && mv {made} {home}/models/tiny/"
    monkeypatch.setattr(sys, "executable", str(_builder(home, script)))
    assert await Loader(home).load("tiny", "q4_0") == "q4_0"
    asked = (home / "asked").read_text().split()
    assert asked == ["-m", "build_engines", "tiny", "--variant", "q4_0", "--home", str(home)]


async def test_what_is_published_is_loaded_whatever_it_was_built_from(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "buildable_variants", lambda name: ("gguf", "q8_0"))
    monkeypatch.setattr(sys, "executable", str(_builder(home, "exit 1")))
    publish_model(home, "tiny", "gguf", kind="llama_cpp", quantization="f32")
    assert await Loader(home).load("tiny", "gguf") == "gguf"
    assert not (home / "asked").exists()


async def test_a_file_of_the_quantization_is_loaded_and_nothing_is_built(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "buildable_variants", lambda name: ("q4_0", "q8_0"))
    monkeypatch.setattr(sys, "executable", str(_builder(home, "exit 1")))
    publish_model(home, "tiny", "gguf", kind="llama_cpp", quantization="q4_0")
    assert await Loader(home).load("tiny", "q4_0") == "gguf"
    publish_model(home, "tiny", "q4_0")
    assert await Loader(home).load("tiny", "q4_0") == "q4_0"  # the name says more
    assert not (home / "asked").exists()


async def test_a_build_that_fails_is_told_in_its_last_words(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "echo progress >&2; echo 'error: the disk is full' >&2; exit 1"
    monkeypatch.setattr(loading, "buildable_variants", lambda name: ("q4_0",))
    monkeypatch.setattr(sys, "executable", str(_builder(home, script)))
    with pytest.raises(ModelLoadFailed, match="the disk is full"):
        await Loader(home).load("tiny", "q4_0")


def _builder(home: Path, script: str) -> Path:
    """A program in the place of the interpreter that builds."""
    path = home / "builder"
    path.write_text(f'#!/bin/sh\necho "$@" > {home}/asked\n{script}\n')
    path.chmod(0o755)
    return path


def test_what_can_be_built_is_what_the_specs_say() -> None:
    assert set(buildable_variants("smollm2-135m-instruct")) >= {"f16", "q8_0", "q4_0"}
    assert not buildable_variants("../specs/smollm2-135m-instruct")


async def test_a_damaged_version_is_not_loaded_and_the_model_is_still_known(home: Path) -> None:
    publish_model(home, "tiny", bos_id=1)
    second = publish_model(home, "tiny", bos_id=2)
    (second.path / "tokenizer" / "tokenizer.json").unlink()
    catalog, engine = catalog_of(home), FakeEngine()
    assert catalog.get("tiny").artefacts[0].manifest.version == 1
    with pytest.raises(ModelLoadFailed, match="rollback tiny --variant q8_0"):
        await loading.load_variant(
            catalog, FakeRepository(engine), home=home, name="tiny", quantization=None,
            prefer_gpu=False,
        )  # fmt: skip
    assert engine.models == {}
