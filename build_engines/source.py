"""The fetch stage: finds a model's source, makes sure that it is the right one, and links to it.

The stage's `checkpoint/` holds links, so that its hash is that of the weights, and no copy is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from build_engines.artefact import hash_file
from build_engines.errors import SourceError
from build_engines.progress import Progress
from build_engines.spec import HubSource, PackageSource, PathSource, Source
from build_engines.stages import Stage, StageContext

CHECKPOINT_DIR = "checkpoint"
GGUF_SUFFIX = ".gguf"
# What is taken of a checkpoint's folder: no code, and no pickled weights where there are others.
_TEXT_PATTERNS = ("*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt")
_WEIGHTS_PATTERNS = ("*.safetensors", "pytorch_model*.bin")


def fetch_stage(source: Source) -> Stage:
    """The stage that brings a source here. Raises SourceError for a path that is not there."""
    if isinstance(source, PackageSource):
        inputs = msgspec.structs.asdict(source)
        return _stage(inputs, lambda report: _package_files(source, report))
    if isinstance(source, HubSource):
        inputs = msgspec.structs.asdict(source)
        return _stage(inputs, lambda report: _hub_files(source, report))
    files = path_files(Path(source.path).expanduser().absolute())
    states = {name: _state(path) for name, path in files.items()}
    return _stage({"files": states}, lambda report: files)


def fetched_path(fetch_dir: Path) -> Path:
    """What the fetch stage has found: the real path of a GGUF file or of a checkpoint's folder."""
    folder = fetch_dir / CHECKPOINT_DIR
    if (ggufs := sorted(folder.glob(f"*{GGUF_SUFFIX}"))) and not (folder / "config.json").exists():
        return ggufs[0].resolve()
    return (folder / "config.json").resolve().parent


def source_facts(source: Source, fetch_dir: Path) -> dict[str, str]:
    """What a manifest says of where the weights are from."""
    if isinstance(source, PathSource):
        return {"path": str(fetched_path(fetch_dir))}
    return {key: value for key, value in msgspec.structs.asdict(source).items() if value}


def path_files(path: Path) -> dict[str, Path]:
    """What is taken of a local checkpoint: name in `checkpoint/` -> file. Raises SourceError."""
    if path.is_file() and path.suffix == GGUF_SUFFIX:
        return {path.name: path}
    if not path.is_dir():
        reason = "is neither a folder nor a .gguf file" if path.exists() else "is not there"
        raise SourceError(f"the checkpoint {path} {reason}: give a folder or a GGUF file")
    files = {name: path / name for name in needed_names(_names_below(path))}
    if "config.json" not in files:
        raise SourceError(f"{path} has no config.json: is it a checkpoint's folder?")
    return files


def needed_names(names: list[str]) -> list[str]:
    """Of a repository's files those that a build needs: safetensors rather than pickles."""
    texts = [name for name in names if any(Path(name).match(p) for p in _TEXT_PATTERNS)]
    for pattern in _WEIGHTS_PATTERNS:
        weights = [name for name in names if Path(name).match(pattern) and "/" not in name]
        if weights:
            return sorted(texts + weights)
    return sorted(texts)


def fetch(source: PackageSource, progress: Progress) -> Path:
    """Path of the package's file, checked against its hash. The package is not imported.

    Raises SourceError.
    """
    return _checked_package(source, lambda done, total: progress("fetch", done, total))


def _stage(
    inputs: Mapping[str, Any],
    find: Callable[[Callable[[int, int], None]], Mapping[str, Path]],
) -> Stage:
    def run(out_dir: Path, context: StageContext) -> None:
        for name, path in find(context.report).items():
            link = out_dir / CHECKPOINT_DIR / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())

    return Stage(name="fetch", inputs=inputs, run=run)


def _names_below(folder: Path) -> list[str]:
    """Files of a folder and of the folders in it (1_Pooling/config.json), hidden ones left out."""
    found = (path.relative_to(folder) for path in sorted(folder.glob("*")) if path.is_file())
    deeper = (path.relative_to(folder) for path in sorted(folder.glob("*/*")) if path.is_file())
    return [path.as_posix() for path in (*found, *deeper) if not path.parts[0].startswith(".")]


def _state(path: Path) -> list[str | int]:
    """What tells that a file has not changed without reading it."""
    found = path.stat()
    return [str(path.resolve()), found.st_size, found.st_mtime_ns]


def _hub_files(source: HubSource, report: Callable[[int, int], None]) -> dict[str, Path]:
    raise SourceError(f"{source.hf}: download it, and give its folder by --checkpoint")


def _package_files(source: PackageSource, report: Callable[[int, int], None]) -> dict[str, Path]:
    path = _checked_package(source, report)
    return {path.name: path} if path.suffix == GGUF_SUFFIX else path_files(path.parent)


def _checked_package(source: PackageSource, report: Callable[[int, int], None]) -> Path:
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
