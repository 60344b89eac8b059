from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from build_engines.artefacts.artefact import hash_file
from build_engines.checkpoints.source import fetch
from build_engines.errors import SourceError
from build_engines.progress import silent
from build_engines.spec import PackageSource


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackageSource:
    """A package that is installed in a directory of sys.path, as pip would have."""
    info = tmp_path / "tiny_weights-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.2\n")
    package = tmp_path / "tiny_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('its dependencies are not installed')")
    weights = package / "tiny.gguf"
    weights.write_bytes(b"w" * 3_000_000)
    monkeypatch.syspath_prepend(tmp_path)
    return PackageSource(
        package="tiny-weights",
        version="1.2",
        file="tiny_weights/tiny.gguf",
        sha256=hash_file(weights),
    )


def test_the_file_is_found_without_importing_the_package(
    source: PackageSource, tmp_path: Path
) -> None:
    steps: list[tuple[str, int, int]] = []
    path = fetch(source, lambda stage, done, total: steps.append((stage, done, total)))
    assert path == tmp_path / "tiny_weights" / "tiny.gguf"
    assert steps[-1] == ("fetch", 3_000_000, 3_000_000)


def test_a_package_that_is_not_installed_is_named(source: PackageSource) -> None:
    missing = msgspec.structs.replace(source, package="no-such-weights")
    with pytest.raises(SourceError, match=r"not installed: run `pip install --no-deps no-such-w"):
        fetch(missing, silent)


def test_another_version_is_not_taken(source: PackageSource) -> None:
    newer = msgspec.structs.replace(source, version="1.3")
    with pytest.raises(SourceError, match=r"1\.2 is installed, 1\.3 is needed: run `pip install"):
        fetch(newer, silent)


def test_a_package_without_its_file_is_an_error(source: PackageSource, tmp_path: Path) -> None:
    (tmp_path / "tiny_weights" / "tiny.gguf").unlink()
    with pytest.raises(SourceError, match=r"without tiny_weights/tiny\.gguf: .*--force-reinstall"):
        fetch(source, silent)


def test_a_changed_file_is_an_error(source: PackageSource, tmp_path: Path) -> None:
    (tmp_path / "tiny_weights" / "tiny.gguf").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"has SHA-256 2d711642.*, expected"):
        fetch(source, silent)
