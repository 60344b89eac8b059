"""Puts an artefact together from finished stages: by links, so that nothing is written twice."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from build_engines.artefacts.artefact import SCHEMA_VERSION, Artefact, FileEntry, Manifest
from build_engines.artefacts.manifest import content_hash
from build_engines.recipe import Describe, Order, Produced
from build_engines.stages import stage_files
from build_engines.verify.verified import RECORD_FOLDER, VERIFY, Verified, read_verified


def assemble(
    order: Order,
    layout: Mapping[str, str],
    describe: Describe,
    done: Mapping[str, Path],
    directory: Path,
) -> Artefact:
    """Fills the new `directory` with the files of `done`, as BuildPlan says; not yet published.

    The manifest is in the Artefact, not in the directory. The verify stage makes its candidate by
    this, and the pipeline what it publishes.
    """
    files: dict[str, FileEntry] = {}
    for stage, folder in layout.items():
        for name, entry in stage_files(done[stage]).items():
            target = directory / folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy((done[stage] / name).resolve(), target)
            files[target.relative_to(directory).as_posix()] = entry
    if VERIFY in done:
        files |= _link_record(done[VERIFY], directory)
    manifest = _manifest(order, describe(done), files, read_verified(done))
    return Artefact(manifest=manifest, path=directory, content_hash=content_hash(manifest))


def link_or_copy(source: Path, target: Path) -> None:
    """A second name for a file, where the file system can; else a copy."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def _link_record(stage_dir: Path, directory: Path) -> dict[str, FileEntry]:
    files = {}
    for name, entry in stage_files(stage_dir).items():
        if PurePosixPath(name).parts[0] == RECORD_FOLDER:
            files[PurePosixPath(name).name] = entry
            link_or_copy(stage_dir / name, directory / PurePosixPath(name).name)
    return files


def _manifest(
    order: Order,
    produced: Produced,
    files: Mapping[str, FileEntry],
    verified: Verified | None,
) -> Manifest:
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=order.spec.name,
        variant=order.variant.name,
        kind=order.variant.kind,
        format=produced.format,
        quantization=produced.quantization or order.variant.quantization,
        source=produced.source,
        tools=produced.tools,
        files=dict(sorted(files.items())),
        size_bytes=sum(entry.size_bytes for entry in files.values()),
        limits=produced.limits,
        tokens=produced.tokens,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        memory_bytes=None if verified is None else verified.memory_bytes,
        verification=None if verified is None else verified.result,
        embedding_size=produced.embedding_size,
        engine=produced.engine,
        adapters=dict(produced.adapters),
        family=order.spec.family,
        order_key=order.key,
        tool_parser=order.spec.tool_parser,
        reasoning_parser=order.spec.reasoning_parser,
    )
