"""What a published model is on disk: its manifest, and finding, checking and publishing it.

The only reader and writer of manifest.json. Knows nothing of how a model is built or served.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from build_engines.errors import ArtefactError

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
CHUNK_BYTES = 1 << 20

logger = logging.getLogger(__name__)

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of an artefact."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Tokens of prompt and output together, of the prompt alone, and the number of token ids."""

    max_seq_len: int
    max_input_len: int
    vocab_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialTokens:
    """Token ids with a meaning. The first of `eos_ids` is the engine's end_id.

    `fill_in_middle` is the prompt for the text between two others, which stand in it as {prefix}
    and {suffix}; None: the model has not learnt that.
    """

    bos_id: int | None
    eos_ids: list[int]
    pad_id: int | None
    fill_in_middle: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationResult:
    """How a model did when it was asked in a real Triton, before it was published.

    `difference` from `reference`: the mean absolute one of log-probs in nats; of an embedding the
    greatest one of cosines. None: there was nothing to compare with.
    """

    reference: str
    difference: float | None
    tolerance: float | None
    tokens_per_s: dict[str, float]  # number of streams -> of all together; of an embedding "1" only


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is known about a published artefact."""

    schema_version: int
    name: str
    variant: str
    kind: str  # which engine runs it: a folder of triton_models/
    format: str
    quantization: str
    source: dict[str, str]
    tools: dict[str, str]  # package -> version
    files: dict[
        str, FileEntry
    ]  # POSIX path inside the artefact -> file; the manifest itself is not in it
    size_bytes: int  # weights and tokenizer together
    limits: Limits
    tokens: SpecialTokens
    created: str  # ISO 8601, UTC
    memory_bytes: int | None  # resident memory that loading the model took, where it was measured
    embedding_size: int | None = None  # values of a vector; None: the model generates tokens
    # Names of what reads the model's tool calls and thoughts; None: its chat template says it.
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    verification: VerificationResult | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """A published model: `path` is the directory that holds it."""

    manifest: Manifest
    path: Path


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
    """Where a model's variant is published."""
    return models_dir(home) / name / variant


def list_artefacts(home: Path) -> list[Artefact]:
    """All published artefacts, by name and variant.

    One that is damaged is logged and left out: the others can still be served.
    """
    artefacts = []
    for path in sorted(models_dir(home).glob("*/*/")):
        if not (is_safe_name(path.name) and is_safe_name(path.parent.name)):
            continue
        try:
            artefacts.append(read_artefact(path))
        except ArtefactError as exc:
            _report(str(exc))
    return artefacts


def find_artefact(home: Path, name: str, variant: str) -> Artefact | None:
    """The published artefact, or None. Raises ArtefactError for a damaged one. Reads no weights."""
    if not (is_safe_name(name) and is_safe_name(variant)):
        return None
    path = artefact_dir(home, name, variant)
    return read_artefact(path) if path.is_dir() else None


def read_artefact(path: Path) -> Artefact:
    """Reads a published artefact and checks that its files are there in full length.

    Raises ArtefactError, which says what to do.
    """
    manifest = _read_manifest(path)
    if (manifest.name, manifest.variant) != (path.parent.name, path.name):
        raise _damaged(path, f"its manifest is that of {manifest.name}/{manifest.variant}")
    for name, entry in manifest.files.items():
        try:
            found = (path / name).stat()
        except FileNotFoundError:
            raise _damaged(path, f"{name} is missing") from None
        if not stat.S_ISREG(found.st_mode) or found.st_size != entry.size_bytes:
            raise _damaged(path, f"{name} is not a file of {entry.size_bytes} bytes")
    return Artefact(manifest=manifest, path=path)


def verify_hashes(artefact: Artefact) -> None:
    """Reads every file of an artefact. Raises ArtefactError for one that has changed."""
    for name, entry in artefact.manifest.files.items():
        if hash_file(artefact.path / name) != entry.sha256:
            raise _damaged(artefact.path, f"{name} has changed since it was published")


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
    """Makes the finished directory `built` visible as an artefact, at once and for good.

    `built` must be on the same file system as `home`; it is moved. Its content is on the disk
    before its name is. Raises ArtefactError when the variant is published already.
    """
    target = artefact_dir(home, manifest.name, manifest.variant)
    if target.exists():
        raise ArtefactError(f"{manifest.name}/{manifest.variant} is published already in {target}")
    content = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (built / MANIFEST_NAME).write_bytes(content + b"\n")
    sync_tree(built)
    target.parent.mkdir(parents=True, exist_ok=True)
    built.rename(target)
    for parent in (target.parent, models_dir(home), home):
        _sync(parent)
    return Artefact(manifest=manifest, path=target)


def sync_tree(directory: Path) -> None:
    """Waits until everything below a directory is on the disk."""
    for path in _files_below(directory):
        _sync(path)
    for folder, _, _ in os.walk(directory, topdown=False):
        _sync(Path(folder))


@functools.lru_cache(maxsize=256)
def _report(reason: str) -> None:
    """Logs each damage once: the list is read every second."""
    logger.warning("artefact left out", extra={"reason": reason})


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
    except FileNotFoundError:
        raise _damaged(path, f"it has no {MANIFEST_NAME}") from None
    except msgspec.DecodeError as exc:
        raise _damaged(path, f"{MANIFEST_NAME}: {exc}") from exc


def _damaged(path: Path, why: str) -> ArtefactError:
    return ArtefactError(
        f"the artefact in {path} is damaged ({why}): delete the directory and build the model again"
    )


def _files_below(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.rglob("*")) if path.is_file())


def _sync(path: Path) -> None:
    """Waits until a file's content, or a directory's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
