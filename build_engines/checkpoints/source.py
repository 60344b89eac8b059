"""The fetch stage: finds a model's source, makes sure that it is the right one, and links to it.

The stage's `checkpoint/` holds links, so that its hash is that of the weights, and no copy is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from build_engines.artefacts.artefact import FileEntry, hash_file
from build_engines.checkpoints import hub
from build_engines.checkpoints.needed_files import GGUF_SUFFIX, Found, Report, needed_names
from build_engines.checkpoints.shards import shard_paths
from build_engines.errors import SourceError
from build_engines.progress import Progress
from build_engines.spec import HubSource, PackageSource, PathSource, Source
from build_engines.stages import Stage, StageContext

CHECKPOINT_DIR = "checkpoint"


def fetch_stage(source: Source, home: Path) -> Stage:
    """The stage that brings a source here; downloads are kept in `home`.

    Raises SourceError for a path that is not there.
    """
    if isinstance(source, PackageSource):
        inputs = msgspec.structs.asdict(source)
        return _stage(inputs, lambda report: _package_files(source, report))
    if isinstance(source, HubSource):
        inputs = msgspec.structs.asdict(source)
        return _stage(inputs, lambda report: hub.download(source, home, report))
    files = path_files(Path(source.path).expanduser().absolute())
    states = {name: _state(path) for name, path in files.items()}
    return _stage({"files": states}, lambda report: {name: Found(files[name]) for name in files})


def fetched_path(fetch_dir: Path) -> Path:
    """What the fetch stage has found: where a GGUF file or a checkpoint's folder really is.

    One link deep: what it leads to may be links again, with other names (Hugging Face's cache).
    """
    folder = fetch_dir / CHECKPOINT_DIR
    ggufs = sorted(folder.glob(f"*{GGUF_SUFFIX}"))
    if ggufs and not (folder / "config.json").exists():
        return ggufs[0].readlink()
    return (folder / "config.json").readlink().parent


def local_path(source: Source) -> Path | None:
    """Where a source is, before it is fetched: None for what is still to be downloaded.

    Raises SourceError for one that is missing.
    """
    if isinstance(source, HubSource):
        return None
    if isinstance(source, PathSource):
        path = Path(source.path).expanduser().absolute()
        path_files(path)
        return path if path.is_dir() else shard_paths(path)[0]
    path = _locate(source)
    return path if path.suffix == GGUF_SUFFIX else path.parent


def source_facts(source: Source, fetch_dir: Path) -> dict[str, str]:
    """What a manifest says of where the weights are from."""
    if isinstance(source, PathSource):
        return {"path": str(fetched_path(fetch_dir))}
    facts = msgspec.structs.asdict(source)
    return {key: value for key, value in facts.items() if isinstance(value, str) and value}


def path_files(path: Path) -> dict[str, Path]:
    """What is taken of a local checkpoint: name in `checkpoint/` -> file. Raises SourceError."""
    if path.is_file() and path.suffix == GGUF_SUFFIX:
        return {shard.name: shard for shard in shard_paths(path)}
    if not path.is_dir():
        reason = "is neither a folder nor a .gguf file" if path.exists() else "is not there"
        raise SourceError(f"the checkpoint {path} {reason}: give a folder or a GGUF file")
    files = {name: path / name for name in needed_names(_names_below(path))}
    if "config.json" not in files:
        raise SourceError(f"{path} has no config.json: is it a checkpoint's folder?")
    return files


def fetch(source: PackageSource, progress: Progress) -> Path:
    """Path of the package's file, checked against its hash. The package is not imported.

    Raises SourceError.
    """
    return _checked_package(source, lambda done, total: progress("fetch", done, total))


def _stage(
    inputs: Mapping[str, Any],
    find: Callable[[Report], Mapping[str, Found]],
) -> Stage:
    def run(out_dir: Path, context: StageContext) -> dict[str, FileEntry]:
        found = find(context.report)
        hash_bytes = _Hashing(found, context.report)
        entries = {}
        for name, file in found.items():
            link = out_dir / CHECKPOINT_DIR / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.path)
            entries[f"{CHECKPOINT_DIR}/{name}"] = hash_bytes.entry(file)
        return entries

    return Stage(name="fetch", inputs=inputs, run=run)


class _Hashing:
    """Hashes what is not hashed yet, and reports how far it is through all of it."""

    def __init__(self, found: Mapping[str, Found], report: Report) -> None:
        todo = [file.path.stat().st_size for file in found.values() if file.sha256 is None]
        self._report = report
        self._total, self._done = sum(todo), 0

    def entry(self, file: Found) -> FileEntry:
        size = file.path.stat().st_size
        if file.sha256 is not None:
            return FileEntry(size_bytes=size, sha256=file.sha256)
        done = self._done
        sha256 = hash_file(file.path, lambda new: self._report(done + new, self._total))
        self._done += size
        return FileEntry(size_bytes=size, sha256=sha256)


def _names_below(folder: Path) -> list[str]:
    """Files of a folder and of the folders in it (1_Pooling/config.json), hidden ones left out."""
    found = (path.relative_to(folder) for path in sorted(folder.glob("*")) if path.is_file())
    deeper = (path.relative_to(folder) for path in sorted(folder.glob("*/*")) if path.is_file())
    return [path.as_posix() for path in (*found, *deeper) if not path.parts[0].startswith(".")]


def _state(path: Path) -> list[str | int]:
    """What tells that a file has not changed without reading it."""
    found = path.stat()
    return [str(path.resolve()), found.st_size, found.st_mtime_ns]


def _package_files(source: PackageSource, report: Report) -> dict[str, Found]:
    path = _checked_package(source, report)
    checked = {path.name: Found(path, source.sha256)}
    if path.suffix == GGUF_SUFFIX:
        return checked
    return {name: Found(file) for name, file in path_files(path.parent).items()} | checked


def _checked_package(source: PackageSource, report: Report) -> Path:
    path = _locate(source)
    total = path.stat().st_size
    found = hash_file(path, lambda done: report(done, total))
    if found != source.sha256:
        raise SourceError(
            f"{path} has SHA-256 {found}, expected {source.sha256}: "
            f"{_install(source, reinstall=True)}"
        )
    return path


def _locate(source: PackageSource) -> Path:
    try:
        distribution = metadata.distribution(source.package)
    except metadata.PackageNotFoundError:
        raise SourceError(
            f"the package {source.package} with the model's weights is not installed: "
            f"{_install(source)}"
        ) from None
    if distribution.version != source.version:
        raise SourceError(
            f"{source.package} {distribution.version} is installed, {source.version} is needed: "
            f"{_install(source)}"
        )
    path = Path(str(distribution.locate_file(source.file)))
    if not path.is_file():
        raise SourceError(
            f"{source.package} is installed without {source.file}: "
            f"{_install(source, reinstall=True)}"
        )
    return path


def _install(source: PackageSource, *, reinstall: bool = False) -> str:
    flag = "--force-reinstall " if reinstall else ""
    return f"run `pip install --no-deps {flag}{source.package}=={source.version}`"
