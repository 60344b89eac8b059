"""Runs the stages of a build, each once: what is finished survives kill -9 and is not done again.

A stage is a directory that is written beside its place, flushed and renamed. Its name ends in a
hash of its inputs and of the content of the stages before it. Knows nothing of models.
"""

from __future__ import annotations

import hashlib
import shutil
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from build_engines.artefacts.artefact import FileEntry, describe_files, sync_tree
from build_engines.artefacts.versions import sync
from build_engines.errors import BuildError
from build_engines.progress import Progress

STAGE_FILE = "stage.json"
PARTIAL_SUFFIX = ".partial"
SMALL_BYTES = 1 << 20  # what a stage may take to be kept after its build is published
_HASH_DIGITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class StageContext:
    """What a running stage may use."""

    done: Mapping[str, Path]  # the finished stages' directories, by name
    report: Callable[[int, int], None]  # so many units of so many are done; 0 of 0: unknown
    log: Path  # the build's log file; append to it


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One step of a build.

    `run` fills the directory that it is given, and may return what it knows of its files already
    (path -> size and hash; else they are read). Equal `inputs` and equal content of the stages
    before must give equal content, but for stages that nothing comes after (verify).
    """

    name: str
    inputs: Mapping[str, Any]  # JSON-able
    run: Callable[[Path, StageContext], Mapping[str, FileEntry] | None]
    required_bytes: int = 0  # upper estimate of what it writes to the disk
    required_memory_bytes: int = 0  # about what it takes of the machine's memory
    takes: str = ""  # class of its time, for --plan: see time_class
    commands: tuple[str, ...] = ()  # what it runs, for --plan
    # Raises BuildError for what this machine lacks; called before the build does anything
    check: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A stage that is done: where, and the hash of what is in there."""

    path: Path
    digest: str


class _StageFile(msgspec.Struct, frozen=True):
    name: str
    digest: str
    files: dict[str, FileEntry]


@dataclass(slots=True)
class StageStore:
    """The stages of one model's variant in `root`; for the holder of its build lock.

    A stage that fails leaves its directory, so that a full disk is still full when the error is
    looked at: discard_partial is the caller's to call.

    `before` is what the next stage builds on, in the order it was done.
    """

    root: Path
    before: dict[str, Finished] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """Where the tools' output goes."""
        return self.root / "build.log"

    def find(self, stage: Stage) -> Finished | None:
        """The stage's directory, if it is done."""
        return _read(self._path(stage))

    def run(self, stage: Stage, progress: Progress) -> Finished:
        """Does a stage unless it is done, and lets the next ones build on it."""
        finished = self.find(stage) or self._do(stage, progress)
        self.before[stage.name] = finished
        return finished

    def todo(self, stages: Sequence[Stage]) -> list[Stage]:
        """Those that are not done; what comes behind one that is not, is not either."""
        known = dict(self.before)
        try:
            for index, stage in enumerate(stages):
                finished = self.find(stage)
                if finished is None:
                    return list(stages[index:])
                self.before[stage.name] = finished
            return []
        finally:
            self.before = known

    def discard_partial(self) -> None:
        """Deletes what stages that failed or were killed have left."""
        for path in self.root.glob(f"*{PARTIAL_SUFFIX}"):
            shutil.rmtree(path)

    def collect(self, small_bytes: int = SMALL_BYTES) -> None:
        """Deletes the stages that are larger than that. Links count nothing."""
        for path in self.root.glob("*-*/"):
            if own_bytes(path) > small_bytes:
                shutil.rmtree(path)

    def _path(self, stage: Stage) -> Path:
        key = msgspec.json.encode(
            {
                "inputs": stage.inputs,
                "before": {name: done.digest for name, done in self.before.items()},
            },
            order="deterministic",
        )
        return self.root / f"{stage.name}-{hashlib.sha256(key).hexdigest()[:_HASH_DIGITS]}"

    def _do(self, stage: Stage, progress: Progress) -> Finished:
        target = self._path(stage)
        partial = target.with_name(target.name + PARTIAL_SUFFIX)
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        progress(stage.name, 0, 0)
        context = StageContext(
            done={name: finished.path for name, finished in self.before.items()},
            report=lambda done, total: progress(stage.name, done, total),
            log=self.log,
        )
        files = stage.run(partial, context) or describe_files(partial)
        digest = _digest(files)
        (partial / STAGE_FILE).write_bytes(
            msgspec.json.encode(_StageFile(stage.name, digest, dict(files)))
        )
        sync_tree(partial)
        shutil.rmtree(target, ignore_errors=True)  # one that has lost a file since
        partial.rename(target)
        sync(self.root)
        progress(stage.name, 1, 1)
        return Finished(path=target, digest=digest)


@contextmanager
def failures_in_log(log: Path) -> Iterator[None]:
    """Writes down how a build ended, and turns what nobody expected into one line with the log."""
    try:
        yield
    except Exception as exc:
        with log.open("a", encoding="utf-8") as file:
            traceback.print_exc(file=file)
        if isinstance(exc, (BuildError, OSError)):
            raise
        first = str(exc).strip().partition("\n")[0]
        raise BuildError(
            f"the build failed unexpectedly ({type(exc).__name__}: {first}): see {log}"
        ) from exc


def own_bytes(path: Path) -> int:
    """Bytes of a file, or of those below a directory; what is only linked to is left out."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(one.lstat().st_size for one in files if one.is_file() and not one.is_symlink())


def builds_dir(home: Path, name: str, variant: str) -> Path:
    """Where the stages of a model's variant are kept."""
    return home / "builds" / name / variant


def folder_state(folder: Path) -> list[list[str | int]]:
    """What tells that a folder has not changed, without reading its files."""
    return [
        [path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


@cache
def code_hash(folder: Path) -> str:
    """Of the modules in a folder: an input of the stages that they run, so that a correction of
    ours is not answered with what was made before it."""
    modules = sorted(folder.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in modules)).hexdigest()


def stage_files(path: Path) -> dict[str, FileEntry]:
    """The files of a finished stage, with their hashes."""
    return msgspec.json.decode((path / STAGE_FILE).read_bytes(), type=_StageFile).files


def _read(path: Path) -> Finished | None:
    """None for what is not done, and for what has lost a file since: a download that was deleted,
    a checkpoint that has moved."""
    try:
        found = msgspec.json.decode((path / STAGE_FILE).read_bytes(), type=_StageFile)
        sizes = {name: (path / name).stat().st_size for name in found.files}
    except FileNotFoundError:
        return None
    is_whole = all(sizes[name] == entry.size_bytes for name, entry in found.files.items())
    return Finished(path=path, digest=found.digest) if is_whole else None


def _digest(files: Mapping[str, FileEntry]) -> str:
    content = "".join(f"{entry.sha256} {name}\n" for name, entry in sorted(files.items()))
    return hashlib.sha256(content.encode()).hexdigest()
