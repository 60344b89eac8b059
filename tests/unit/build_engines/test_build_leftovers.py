from __future__ import annotations

from pathlib import Path

import pytest

from build_engines.artefacts.artefact import verify_hashes
from build_engines.errors import ConversionError
from build_engines.leftovers import collect_builds
from build_engines.lock import build_lock
from tests.unit.build_engines.build_fakes import FakeRecipe, build_tiny


def fail_in_verify(stage: str, out: Path) -> None:
    if stage == "convert":
        (out / "large").write_bytes(bytes(2 << 20))
    if stage == "verify":
        raise ConversionError("no")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """With a published build, one that failed late, and a download."""
    build_tiny(tmp_path, variant="f16")
    with pytest.raises(ConversionError):
        build_tiny(tmp_path, FakeRecipe(on_written=fail_in_verify))
    download = tmp_path / "downloads" / "owner--name" / "0123"
    download.mkdir(parents=True)
    (download / "model.safetensors").write_bytes(bytes(10))
    return tmp_path


def test_large_stages_and_downloads_are_deleted_the_published_stays(home: Path) -> None:
    heard: list[Path] = []
    found = collect_builds(home, on_found=lambda garbage: heard.append(garbage.path))
    assert [(one.path.parent.name, one.size_bytes > 0) for one in found] == [
        ("q8_0", True),
        ("owner--name", True),
    ]
    assert heard == [one.path for one in found]
    assert not any(one.path.exists() for one in found)
    verify_hashes(build_tiny(home, variant="f16"))
    recipe = FakeRecipe()
    build_tiny(home, recipe)
    assert recipe.runs == ["convert", "verify"]  # the small ones were kept


def test_a_dry_run_deletes_nothing(home: Path) -> None:
    found = collect_builds(home, is_dry_run=True)
    assert len(found) == 2
    assert all(one.path.exists() for one in found)


def test_a_build_under_way_keeps_its_stages_and_all_downloads(home: Path) -> None:
    with build_lock(home, "tiny", "q8_0", on_wait=lambda: None):
        assert collect_builds(home) == []
