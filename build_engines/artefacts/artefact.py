"""What a published model is on disk: its manifest, and finding, checking and publishing it.

The only reader and writer of manifest.json. Knows nothing of how a model is built or served;
which of its versions is the current one is kept by `versions.py`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from build_engines.artefacts.manifest import (
    SCHEMA_VERSION,
    Adapter,
    DraftingFacts,
    EngineFacts,
    FileEntry,
    Limits,
    Manifest,
    SpecialTokens,
    VerificationResult,
    content_hash,
)
from build_engines.artefacts.versions import (
    add_version,
    change_lock,
    current_version,
    make_current,
    next_version,
    previous_version,
    sync,
    version_numbers,
)
from build_engines.errors import ArtefactError

__all__ = [  # what is in a manifest is said in one place for all who use artefacts
    "SCHEMA_VERSION",
    "Adapter",
    "DraftingFacts",
    "EngineFacts",
    "FileEntry",
    "Limits",
    "Manifest",
    "SpecialTokens",
    "VerificationResult",
]

MANIFEST_NAME = "manifest.json"
CHUNK_BYTES = 1 << 20

logger = logging.getLogger(__name__)

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """A published version of a model: `path` is the directory that holds it."""

    manifest: Manifest
    path: Path
    content_hash: str  # see `manifest.content_hash`


@dataclass(frozen=True, slots=True)
class _SchemaOnly:
    schema_version: int


def is_safe_name(name: str) -> bool:
    """Whether a model's or variant's name may be a directory's; such names stay in `models/`."""
    return _SAFE_NAME.fullmatch(name) is not None


def models_dir(home: Path) -> Path:
    """The directory of all published models."""
    return home / "models"


def artefact_dir(home: Path, name: str, variant: str) -> Path:
    """Where the versions of a model's variant are."""
    return models_dir(home) / name / variant


def list_artefacts(home: Path, *, takes_others: bool = False) -> list[Artefact]:
    """The current versions of all published models, by name and variant.

    One that is damaged is logged and left out: the others can still be served. With `takes_others`
    another version of it is in its place, if there is one: that may be served still.
    """
    artefacts = []
    for path in sorted(models_dir(home).glob("*/*/")):
        try:
            artefacts.append(find_artefact(home, path.parent.name, path.name))
        except ArtefactError as exc:
            _report(str(exc))
            if takes_others:
                artefacts.append(_newest_whole(path))
    return [artefact for artefact in artefacts if artefact is not None]


def _newest_whole(variant_dir: Path) -> Artefact | None:
    for number in reversed(version_numbers(variant_dir)):
        with contextlib.suppress(ArtefactError):  # the next one may be whole
            return read_artefact(variant_dir / str(number))
    return None


def find_artefact(home: Path, name: str, variant: str) -> Artefact | None:
    """The current version, or None. Raises ArtefactError for a damaged one. Reads no weights.

    Versions may be published, rolled back and deleted meanwhile.
    """
    if not (is_safe_name(name) and is_safe_name(variant)):
        return None
    variant_dir = artefact_dir(home, name, variant)
    while (version := current_version(variant_dir)) is not None:
        try:
            return read_artefact(variant_dir / str(version))
        except ArtefactError:
            if current_version(variant_dir) == version:
                raise
    if (variant_dir / MANIFEST_NAME).exists():
        _read_manifest(variant_dir)  # of before there were versions: it says so
    return None


def read_artefact(path: Path) -> Artefact:
    """Reads a published version and checks that its files are there in full length.

    Raises ArtefactError, which says what to do.
    """
    artefact = read_directory(path)
    found = artefact.manifest
    expected = (path.parent.parent.name, path.parent.name, path.name)
    if (found.name, found.variant, str(found.version)) != expected:
        named = f"{found.name}/{found.variant}/{found.version}"
        raise damaged(path, f"its manifest is that of {named}")
    return artefact


def read_directory(path: Path) -> Artefact:
    """The same of an artefact that lies anywhere, under whatever name."""
    manifest = _read_manifest(path)
    for name, entry in manifest.files.items():
        try:
            found = (path / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            raise damaged(path, f"{name} is missing") from None
        if not stat.S_ISREG(found.st_mode) or found.st_size != entry.size_bytes:
            raise damaged(path, f"{name} is not a file of {entry.size_bytes} bytes")
    return Artefact(manifest=manifest, path=path, content_hash=content_hash(manifest))


def verify_hashes(artefact: Artefact) -> None:
    """Reads every file of an artefact. Raises ArtefactError for one that has changed."""
    for name, entry in artefact.manifest.files.items():
        if hash_file(artefact.path / name) != entry.sha256:
            raise damaged(artefact.path, f"{name} has changed since it was published")


def hash_file(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file, in hex. `on_bytes` hears of the bytes done so far."""
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            if on_bytes is not None:
                on_bytes(done)
    return digest.hexdigest()


def describe_files(directory: Path) -> dict[str, FileEntry]:
    """Sizes and hashes of all files below a directory, the manifest left out, ordered by path."""
    return {
        path.relative_to(directory).as_posix(): FileEntry(
            size_bytes=path.stat().st_size, sha256=hash_file(path)
        )
        for path in _files_below(directory)
        if path != directory / MANIFEST_NAME
    }


def publish(home: Path, built: Path, manifest: Manifest) -> Artefact:
    """Makes the finished directory `built` its variant's current version, at once and for good.

    `built` must be on the same file system as `home`; it is moved. Its content is on the disk
    before its name is. What was current is kept, for a rollback. Where a version of the same
    content is there already, that one becomes the current one, and `built` is deleted.
    """
    variant_dir = artefact_dir(home, manifest.name, manifest.variant)
    with change_lock(home, manifest.name, manifest.variant):
        equal = _version_of(variant_dir, content_hash(manifest))
        if equal is not None:
            make_current(variant_dir, equal.manifest.version)
            shutil.rmtree(built)
            return equal
        manifest = replace(manifest, version=next_version(variant_dir))
        write_manifest(built, manifest)
        sync_tree(built)
        version = add_version(variant_dir, built)
        make_current(variant_dir, version)
        for parent in (variant_dir.parent, models_dir(home), home):
            sync(parent)
    return read_artefact(variant_dir / str(version))


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """What `publish` writes; for a candidate that is served before it is published."""
    content = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (directory / MANIFEST_NAME).write_bytes(content + b"\n")


def _version_of(variant_dir: Path, wanted: str) -> Artefact | None:
    """The newest version of this content that is whole; one that has decayed is built anew."""
    for number in reversed(version_numbers(variant_dir)):
        try:
            found = read_artefact(variant_dir / str(number))
            if found.content_hash == wanted:
                verify_hashes(found)
                return found
        except ArtefactError as exc:
            logger.info("version not used again", extra={"reason": str(exc)})
    return None


def sync_tree(directory: Path) -> None:
    """Waits until everything below a directory is on the disk."""
    for path in _files_below(directory):
        sync(path)
    for folder, _, _ in os.walk(directory, topdown=False):
        sync(Path(folder))


@functools.lru_cache(maxsize=256)
def _report(reason: str) -> None:
    """Logs each damage once: the list is read every second."""
    logger.warning("artefact left out", extra={"reason": reason})


def damaged(path: Path, why: str) -> ArtefactError:
    """The error for a version that cannot be used; it says what to do."""
    variant_dir = path.parent
    name = f"{variant_dir.parent.name} --variant {variant_dir.name}"
    is_current = str(current_version(variant_dir)) == path.name
    previous = previous_version(variant_dir) if is_current else None
    advice = f"`inflight models remove {name}` deletes it, then build the model again"
    if previous is not None:
        advice = f"`inflight models rollback {name}` goes back to version {previous}; or {advice}"
    return ArtefactError(f"the artefact in {path} is damaged ({why}): {advice}")


def _read_manifest(path: Path) -> Manifest:
    try:
        content = (path / MANIFEST_NAME).read_bytes()
        version = msgspec.json.decode(content, type=_SchemaOnly).schema_version
        if version != SCHEMA_VERSION:
            raise ArtefactError(
                f"the artefact in {path} has manifest schema {version}, this version of Inflight "
                f"reads {SCHEMA_VERSION}: delete the directory and build the model again"
            )
        return msgspec.json.decode(content, type=Manifest)
    except (FileNotFoundError, NotADirectoryError):
        raise damaged(path, f"it has no {MANIFEST_NAME}") from None
    except msgspec.DecodeError as exc:
        raise damaged(path, f"{MANIFEST_NAME}: {exc}") from exc


def _files_below(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.rglob("*")) if path.is_file())
