"""Versions of a published model: which is served, going back, and what may be deleted."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from build_engines.artefacts import versions
from build_engines.artefacts.artefact import (
    Artefact,
    describe_files,
    find_artefact,
    list_artefacts,
    publish,
    read_artefact,
)
from build_engines.artefacts.retention import collect, published_variants, remove, rollback
from build_engines.artefacts.versions import current_version, previous_version, version_numbers
from build_engines.errors import ArtefactError
from tests.unit.build_engines.test_build_artefact import make_built, make_manifest, publish_tiny


class KilledError(BaseException):
    """Stands for kill -9: nothing behind it is done."""


def current(home: Path) -> int | None:
    found = find_artefact(home, "tiny", "q8_0")
    return None if found is None else found.manifest.version


def variant_dir(home: Path) -> Path:
    return home / "models" / "tiny" / "q8_0"


def publish_versions(home: Path, *contents: bytes) -> list[Artefact]:
    return [publish_tiny(home, content) for content in contents]


def test_what_is_published_is_current_at_once_and_keeps_the_one_before(tmp_path: Path) -> None:
    first, second = publish_versions(tmp_path, b"one", b"two")
    assert (first.manifest.version, second.manifest.version) == (1, 2)
    assert list_artefacts(tmp_path) == [second]
    assert read_artefact(first.path) == first
    assert previous_version(variant_dir(tmp_path)) == 1


def test_equal_content_makes_no_new_version(tmp_path: Path) -> None:
    first = publish_tiny(tmp_path)
    built = make_built(tmp_path)
    later = make_manifest(
        describe_files(built), created="2027-01-01T00:00:00+00:00", memory_bytes=7
    )
    assert publish(tmp_path, built, later) == first
    assert not built.exists()
    assert version_numbers(variant_dir(tmp_path)) == [1]


def test_equal_files_that_are_served_otherwise_are_a_new_version(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    built = make_built(tmp_path)
    publish(tmp_path, built, make_manifest(describe_files(built), tool_parser="hermes"))
    assert version_numbers(variant_dir(tmp_path)) == [1, 2]


def test_equal_content_of_a_version_that_has_decayed_is_published_anew(tmp_path: Path) -> None:
    (publish_tiny(tmp_path).path / "model.bin").write_bytes(b"Weights")
    assert publish_tiny(tmp_path).manifest.version == 2


def test_a_rollback_goes_back_and_forward_again(tmp_path: Path) -> None:
    publish_versions(tmp_path, b"one", b"two")
    assert rollback(tmp_path, "tiny", "q8_0").manifest.version == 1
    assert current(tmp_path) == 1
    assert rollback(tmp_path, "tiny", "q8_0").manifest.version == 2
    assert current(tmp_path) == 2


def test_publishing_again_what_was_rolled_back_goes_forward(tmp_path: Path) -> None:
    publish_versions(tmp_path, b"one", b"two")
    rollback(tmp_path, "tiny", "q8_0")
    assert publish_tiny(tmp_path, b"two").manifest.version == 2
    assert current(tmp_path) == 2


def test_after_a_rollback_the_next_version_goes_back_to_the_good_one(tmp_path: Path) -> None:
    publish_versions(tmp_path, b"one", b"bad")
    rollback(tmp_path, "tiny", "q8_0")
    assert publish_tiny(tmp_path, b"three").manifest.version == 3
    assert rollback(tmp_path, "tiny", "q8_0").manifest.version == 1


def test_there_is_nothing_before_a_first_version(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    with pytest.raises(ArtefactError, match="tiny/q8_0 has no version but 1"):
        rollback(tmp_path, "tiny", "q8_0")


def test_a_damaged_version_is_reported_and_a_rollback_helps(tmp_path: Path) -> None:
    _, second = publish_versions(tmp_path, b"one", b"two")
    (second.path / "model.bin").unlink()
    with pytest.raises(
        ArtefactError,
        match=r"model\.bin is missing.*rollback tiny --variant q8_0` goes back to version 1",
    ):
        find_artefact(tmp_path, "tiny", "q8_0")
    assert list_artefacts(tmp_path) == []
    rollback(tmp_path, "tiny", "q8_0")
    assert current(tmp_path) == 1
    with pytest.raises(ArtefactError, match="damaged"):
        rollback(tmp_path, "tiny", "q8_0")
    assert current(tmp_path) == 1


@pytest.mark.parametrize("num_steps", range(3))
@pytest.mark.parametrize("act", ["publish", "rollback"])
def test_whatever_is_killed_leaves_a_version_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str, num_steps: int
) -> None:
    publish_versions(tmp_path, b"one", b"two")
    acts: dict[str, Callable[[], object]] = {
        "publish": lambda: publish_tiny(tmp_path, b"three"),
        "rollback": lambda: rollback(tmp_path, "tiny", "q8_0"),
    }
    left = [num_steps]

    def step(original: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def change(path: Path, target: Path) -> Path:
            if not left[0]:
                raise KilledError
            left[0] -= 1
            return original(path, target)

        return change

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", step(Path.rename))
        patched.setattr(Path, "replace", step(Path.replace))
        try:
            acts[act]()
        except KilledError:
            assert current(tmp_path) == 2
        else:
            assert (act, num_steps) == ("rollback", 2)
            return
    assert rollback(tmp_path, "tiny", "q8_0").manifest.version == 1, "the last good one is known"
    rollback(tmp_path, "tiny", "q8_0")
    shutil.rmtree(tmp_path / "work", ignore_errors=True)
    assert publish_tiny(tmp_path, b"three").manifest.version == 3
    assert current(tmp_path) == 3


def test_a_first_publication_that_was_killed_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(versions, "_point", kill)
        with pytest.raises(KilledError):
            publish_tiny(tmp_path)
    assert current(tmp_path) is None
    assert collect(tmp_path, in_use=()) == []
    assert publish_tiny(tmp_path).manifest.version == 1
    assert current(tmp_path) == 1


def test_readers_meet_a_whole_version_while_others_change_it(tmp_path: Path) -> None:
    publish_versions(tmp_path, b"one", b"two")
    is_done = threading.Event()

    def change() -> None:
        for number in range(30):
            publish_tiny(tmp_path, str(number).encode())
            collect(tmp_path, in_use=())
            rollback(tmp_path, "tiny", "q8_0")
        is_done.set()

    thread = threading.Thread(target=change)
    thread.start()
    num_reads = 0
    while not is_done.is_set():
        found = find_artefact(tmp_path, "tiny", "q8_0")
        assert found is not None
        num_reads += 1
    thread.join()
    assert num_reads > 30


def test_collecting_frees_what_is_neither_current_nor_the_one_before_nor_in_use(
    tmp_path: Path,
) -> None:
    published = publish_versions(tmp_path, b"one", b"two", b"three", b"four", b"five")
    in_use = [published[1].path]
    found = collect(tmp_path, in_use=in_use, is_dry_run=True)
    assert [one.path.name for one in found] == ["1", "3"]
    assert all(one.size_bytes > len(b"one") for one in found)
    assert version_numbers(variant_dir(tmp_path)) == [1, 2, 3, 4, 5]
    assert collect(tmp_path, in_use=in_use) == found
    assert version_numbers(variant_dir(tmp_path)) == [2, 4, 5]
    assert rollback(tmp_path, "tiny", "q8_0").manifest.version == 4


def test_collecting_goes_on_where_a_removal_was_cut_short(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    for name in ("q8_0/.7.removing", ".f16.removed"):
        left = variant_dir(tmp_path).parent / name
        left.mkdir()
        (left / "model.bin").write_bytes(b"12345")
    assert [one.size_bytes for one in collect(tmp_path, in_use=())] == [5, 5]
    assert collect(tmp_path, in_use=()) == []
    assert current(tmp_path) == 1


def test_a_removed_variant_is_gone_with_all_its_versions(tmp_path: Path) -> None:
    publish_versions(tmp_path, b"one", b"two")
    assert published_variants(tmp_path, "tiny") == ["q8_0"]
    assert remove(tmp_path, "tiny", "q8_0") > len(b"onetwo")
    assert published_variants(tmp_path, "tiny") == []
    assert not (tmp_path / "models" / "tiny").exists()
    assert current_version(variant_dir(tmp_path)) is None
