from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from build_engines.artefacts import artefact as artefacts
from build_engines.artefacts.artefact import (
    Artefact,
    FileEntry,
    Limits,
    Manifest,
    SpecialTokens,
    describe_files,
    find_artefact,
    list_artefacts,
    publish,
    verify_hashes,
)
from build_engines.errors import ArtefactError


def make_built(home: Path, content: bytes = b"weights") -> Path:
    built = home / "work"
    (built / "tokenizer").mkdir(parents=True)
    (built / "model.bin").write_bytes(content)
    (built / "tokenizer" / "tokenizer.json").write_bytes(b"{}")
    return built


def make_manifest(files: dict[str, FileEntry], **changes: object) -> Manifest:
    manifest = Manifest(
        schema_version=artefacts.SCHEMA_VERSION,
        name="tiny",
        variant="q8_0",
        kind="cpu",
        format="openvino_ir",
        quantization="q8_0",
        source={"package": "tiny"},
        tools={"gguf": "1"},
        files=files,
        size_bytes=sum(entry.size_bytes for entry in files.values()),
        limits=Limits(max_seq_len=64, max_input_len=63, vocab_size=3),
        tokens=SpecialTokens(bos_id=None, eos_ids=[2, 0], pad_id=1),
        created="2026-11-22T00:00:00+00:00",
        memory_bytes=None,
    )
    return replace(manifest, **changes)  # type: ignore[arg-type]


def publish_tiny(home: Path, content: bytes = b"weights") -> Artefact:
    built = make_built(home, content)
    return publish(home, built, make_manifest(describe_files(built)))


def test_a_published_artefact_is_found_as_it_was_written(tmp_path: Path) -> None:
    published = publish_tiny(tmp_path)

    assert find_artefact(tmp_path, "tiny", "q8_0") == published
    assert list_artefacts(tmp_path) == [published]
    assert published.path == tmp_path / "models" / "tiny" / "q8_0" / "1"
    assert published.manifest.size_bytes == len(b"weights") + len(b"{}")
    assert list(published.manifest.files) == ["model.bin", "tokenizer/tokenizer.json"]
    verify_hashes(published)


def test_the_list_is_ordered_by_name_and_variant(tmp_path: Path) -> None:
    for name, variant in [("b", "q8_0"), ("a", "q8_0"), ("a", "f16")]:
        built = make_built(tmp_path)
        publish(tmp_path, built, make_manifest(describe_files(built), name=name, variant=variant))

    names = [(found.manifest.name, found.manifest.variant) for found in list_artefacts(tmp_path)]
    assert names == [("a", "f16"), ("a", "q8_0"), ("b", "q8_0")]


def test_a_home_that_does_not_exist_holds_nothing(tmp_path: Path) -> None:
    assert list_artefacts(tmp_path / "none") == []
    assert find_artefact(tmp_path / "none", "tiny", "q8_0") is None


@pytest.mark.parametrize("name", ["..", "../tiny", "tiny/../tiny", "", ".tiny", "/etc", "a b"])
def test_a_name_never_leads_out_of_the_models_directory(tmp_path: Path, name: str) -> None:
    publish_tiny(tmp_path)
    assert find_artefact(tmp_path, name, "q8_0") is None
    assert find_artefact(tmp_path, "tiny", name) is None


def test_changed_weights_are_told_by_their_hash(tmp_path: Path) -> None:
    published = publish_tiny(tmp_path)
    (published.path / "model.bin").write_bytes(b"Weights")
    with pytest.raises(ArtefactError, match=r"model\.bin has changed"):
        verify_hashes(published)


@pytest.mark.parametrize("content", [b"weight", b""])
def test_a_file_of_another_size_is_damage(tmp_path: Path, content: bytes) -> None:
    published = publish_tiny(tmp_path)
    (published.path / "model.bin").write_bytes(content)
    with pytest.raises(
        ArtefactError, match=r"model\.bin is not a file of 7 bytes.*build the model"
    ):
        find_artefact(tmp_path, "tiny", "q8_0")


def test_a_missing_file_is_damage(tmp_path: Path) -> None:
    (publish_tiny(tmp_path).path / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(ArtefactError, match=r"tokenizer/tokenizer\.json is missing"):
        find_artefact(tmp_path, "tiny", "q8_0")


@pytest.mark.parametrize("place", ["f16/1", "q8_0/7"])
def test_an_artefact_under_anothers_name_is_damage(tmp_path: Path, place: str) -> None:
    published = publish_tiny(tmp_path)
    moved = tmp_path / "models" / "tiny" / place
    moved.parent.mkdir(exist_ok=True)
    published.path.rename(moved)
    (moved.parent / "current").unlink(missing_ok=True)
    (moved.parent / "current").symlink_to(moved.name)
    with pytest.raises(ArtefactError, match="its manifest is that of tiny/q8_0/1"):
        find_artefact(tmp_path, "tiny", moved.parent.name)


def test_a_version_without_manifest_is_damage(tmp_path: Path) -> None:
    (publish_tiny(tmp_path).path / "manifest.json").unlink()
    with pytest.raises(ArtefactError, match=r"it has no manifest\.json"):
        find_artefact(tmp_path, "tiny", "q8_0")


def test_an_artefact_of_before_there_were_versions_is_told_how_to_be_rebuilt(
    tmp_path: Path,
) -> None:
    published = publish_tiny(tmp_path)
    old = tmp_path / "models" / "tiny" / "f16"
    published.path.rename(old)
    written = msgspec.json.decode((old / "manifest.json").read_bytes()) | {"schema_version": 1}
    (old / "manifest.json").write_bytes(msgspec.json.encode(written))
    with pytest.raises(ArtefactError, match=r"schema 1.*delete the directory and build the model"):
        find_artefact(tmp_path, "tiny", "f16")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, r"manifest schema 99, this version of Inflight reads 2"),
        ({"limits": {"max_seq_len": 1}}, r"missing required field `max_input_len`"),
        ({"size_bytes": "7"}, r"Expected `int`, got `str` - at `\$.size_bytes`"),
        ({"schema_version": None}, r"Expected `int`, got `null`"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_an_error_that_says_why(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = publish_tiny(tmp_path).path / "manifest.json"
    path.write_bytes(msgspec.json.encode(msgspec.json.decode(path.read_bytes()) | change))
    with pytest.raises(ArtefactError, match=message):
        find_artefact(tmp_path, "tiny", "q8_0")


def test_a_damaged_artefact_does_not_hide_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    published = publish_tiny(tmp_path)
    broken = tmp_path / "models" / "tiny" / "broken"
    broken.mkdir()
    (broken / "current").symlink_to("1")
    with caplog.at_level(logging.WARNING):
        assert list_artefacts(tmp_path) == [published]
        assert list_artefacts(tmp_path) == [published]
    assert [record.message for record in caplog.records] == ["artefact left out"]


def test_hidden_directories_are_no_artefacts(tmp_path: Path) -> None:
    (tmp_path / "models" / "tiny" / ".q8_0.building").mkdir(parents=True)
    (tmp_path / "models" / "stray file").write_text("")
    assert list_artefacts(tmp_path) == []
