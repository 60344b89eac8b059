"""What is published in a home folder, joined with what a server of it has loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from build_engines.artefacts.artefact import Artefact, artefact_dir, find_artefact, models_dir
from build_engines.artefacts.retention import published_variants
from build_engines.artefacts.versions import current_version, previous_version, version_numbers
from build_engines.errors import BuildError

Loaded = Mapping[str, Mapping[str, Any]]  # the server's entries by name


class NotPublishedError(BuildError):
    """There is no such model, or no such variant."""

    exit_code = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A variant of a model. What is None is not known: it is damaged, or no server was asked."""

    name: str
    variant: str
    version: int | None  # current
    versions: list[int]
    previous: int | None  # what a rollback goes back to
    artefact: Artefact | None  # the current version
    problem: str | None  # why the current version cannot be used
    is_loaded: bool | None
    loaded_version: int | None
    load_failure: str | None  # why a server has not taken the current version

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        manifest = self.artefact.manifest if self.artefact else None
        return {
            "name": self.name,
            "variant": self.variant,
            "version": self.version,
            "versions": self.versions,
            "previous": self.previous,
            "kind": manifest and manifest.kind,
            "format": manifest and manifest.format,
            "quantization": manifest and manifest.quantization,
            "size_bytes": manifest and manifest.size_bytes,
            "max_seq_len": manifest and manifest.limits.max_seq_len,
            "max_input_len": manifest and manifest.limits.max_input_len,
            "adapters": sorted(manifest.adapters) if manifest else [],
            "loaded": self.is_loaded,
            "loaded_version": self.loaded_version,
            "problem": self.problem or self.load_failure,
        }

    def details(self) -> dict[str, Any]:
        """The same and all else that its manifest says, but for its files."""
        if self.artefact is None:
            return self.facts()
        manifest = self.artefact.manifest
        return {
            **self.facts(),
            "path": str(self.artefact.path),
            "family": manifest.family,
            "created": manifest.created,
            "source": manifest.source,
            "tools": manifest.tools,
            "tokens": asdict(manifest.tokens),
            "vocab_size": manifest.limits.vocab_size,
            "embedding_size": manifest.embedding_size,
            "tool_parser": manifest.tool_parser,
            "reasoning_parser": manifest.reasoning_parser,
            "memory_bytes": manifest.memory_bytes,
            "engine": manifest.engine and asdict(manifest.engine),
            "adapters": {name: asdict(one) for name, one in sorted(manifest.adapters.items())},
            "verification": manifest.verification and asdict(manifest.verification),
            "num_files": len(manifest.files),
        }


def entries(home: Path, loaded: Loaded | None) -> list[Entry]:
    """All variants that are published, by name; damaged ones too."""
    names = sorted(path.name for path in models_dir(home).glob("[!.]*/"))
    return [
        _entry(home, name, variant, loaded)
        for name in names
        for variant in published_variants(home, name)
    ]


def entries_of(
    home: Path, name: str, variant: str | None, loaded: Loaded | None = None
) -> list[Entry]:
    """Those of one model, or one variant of it. Raises NotPublishedError."""
    variants = published_variants(home, name)
    if not variants:
        known = sorted({entry.name for entry in entries(home, None)})
        there = f"there are {', '.join(known)}" if known else "none is published"
        raise NotPublishedError(f"there is no model {name!r} in {home}: {there}")
    if variant is not None and variant not in variants:
        raise NotPublishedError(f"{name} has no variant {variant!r}, only {', '.join(variants)}")
    return [_entry(home, name, one, loaded) for one in variants if variant in (None, one)]


def _entry(home: Path, name: str, variant: str, loaded: Loaded | None) -> Entry:
    variant_dir = artefact_dir(home, name, variant)
    artefact, problem = None, None
    try:
        artefact = find_artefact(home, name, variant)
    except BuildError as exc:
        problem = str(exc)
    served = (loaded or {}).get(name, {})
    is_loaded = bool(served.get("loaded")) and served.get("variant") == variant
    failure = served.get("failed") if is_loaded else None
    return Entry(
        name=name,
        variant=variant,
        version=current_version(variant_dir),
        versions=version_numbers(variant_dir),
        previous=previous_version(variant_dir),
        artefact=artefact,
        problem=problem,
        is_loaded=None if loaded is None else is_loaded,
        loaded_version=served.get("version") if is_loaded else None,
        load_failure=f"the server cannot load it: {failure['reason']}" if failure else None,
    )
