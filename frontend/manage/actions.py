"""What the commands that change something do. Large libraries are imported when they are needed."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from build_engines.artefacts import retention
from build_engines.artefacts.artefact import Artefact, artefact_dir, verify_hashes
from build_engines.artefacts.versions import previous_version
from build_engines.errors import ArtefactError, ChoiceError, SourceError
from frontend.manage.inventory import Entry, entries_of
from frontend.manage.server import Server, ServerError

GGUF_SUFFIX = ".gguf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What is to be published, as it was given."""

    source: Path
    name: str | None
    variant: str | None
    tokenizer: Path | None
    chat_template: str | None
    max_seq_len: int | None


def add(home: Path, given: Given) -> Artefact:
    """Publish it as it is. Raises BuildError."""
    if given.source.suffix == GGUF_SUFFIX:
        return _add_gguf(home, given)
    from build_engines.artefacts.adopting import Adoption, adopt

    return adopt(Adoption(**asdict(given)), home)


def add_adapters(home: Path, name: str, variant: str | None, given: Sequence[str]) -> Artefact:
    """Publish a version of a model that also has these adapters (NAME=FOLDER)."""
    from build_engines.artefacts.adopting import add_adapters

    adapters = {}
    for one in given:
        adapter, _, folder = one.partition("=")
        if not folder:
            raise ChoiceError(f"--adapter is NAME=FOLDER, not {one!r}")
        adapters[adapter] = Path(folder).expanduser()
    return add_adapters(home, _usable(_only(entries_of(home, name, variant))), adapters)


def remove(
    home: Path, name: str, variant: str | None, server: Server | None, *, is_forced: bool
) -> Iterator[str]:
    """Delete variants, and say what was done. Raises ServerError for one that is loaded."""
    loaded = None if server is None else server.models()
    found = entries_of(home, name, variant, loaded)
    for entry in found:
        if entry.is_loaded and server is not None:
            if not is_forced:
                raise ServerError(
                    f"{name}/{entry.variant} is loaded by the server at {server.url}: unload it "
                    f"with `inflight models unload {name}`, or give --force"
                )
            server.unload(name)
            yield f"{name}/{entry.variant}: unloaded"
    for entry in found:
        size_bytes = retention.remove(home, name, entry.variant)
        yield f"{name}/{entry.variant}: removed, {size_bytes / 1e6:.1f} MB are freed"


def rollback(home: Path, name: str, variant: str | None) -> Artefact:
    """Make the version before current; of several variants the only one that has such a one."""
    found = entries_of(home, name, variant)
    able = [
        one for one in found if previous_version(artefact_dir(home, name, one.variant)) is not None
    ]
    return retention.rollback(home, name, _only(able or found).variant)


def verify(
    home: Path, name: str, variant: str | None, *, hashes_only: bool
) -> Iterator[dict[str, Any]]:
    """Check variants one after the other; yield what was found. Raises BuildError."""
    for entry in entries_of(home, name, variant):
        artefact = _usable(entry)
        verify_hashes(artefact)
        result = {
            "name": name,
            "variant": entry.variant,
            "version": artefact.manifest.version,
            "num_files": len(artefact.manifest.files),
        }
        yield result if hashes_only else {**result, **_ask(home, artefact)}


def collect(home: Path, *, is_dry_run: bool) -> list[dict[str, Any]]:
    """Delete what nobody needs, and tell what it was; waits while a model is being loaded.

    What was loaded last stays, whether or not a server is seen to run: a Triton of another machine
    may serve it from this folder.
    """
    from build_engines.leftovers import collect_builds
    from build_engines.pipeline import collect_leftovers
    from frontend.triton.desired import DesiredModels, repository_lock
    from frontend.triton.folders import served_artefact_dir

    with repository_lock(home).open("w") as lock:
        # while a version is being replaced, the repository does not name the one that is served
        fcntl.flock(lock, fcntl.LOCK_EX)
        served = (served_artefact_dir(home, name) for name in DesiredModels(home).names())
        in_use = [path for path in served if path is not None]
        found = retention.collect(home, in_use=in_use, is_dry_run=is_dry_run)
    found += collect_builds(home, is_dry_run=is_dry_run)
    if not is_dry_run:
        collect_leftovers(home)
    return [
        {"path": str(one.path), "size_bytes": one.size_bytes, "reason": one.reason} for one in found
    ]


def _add_gguf(home: Path, given: Given) -> Artefact:
    from build_engines.ordering import Request, order_of
    from build_engines.pipeline import build_order
    from build_engines.progress import ShownProgress
    from build_engines.variants import GGUF_AS_IT_IS

    if given.variant not in (None, GGUF_AS_IT_IS):
        raise ChoiceError(
            f"a GGUF file is served as it is, as variant {GGUF_AS_IT_IS}: to convert it to "
            f"{given.variant}, run `inflight build --checkpoint {given.source}`"
        )
    if not given.source.is_file():
        raise SourceError(f"{given.source} is not there")
    request = Request(
        checkpoint=str(given.source), variant=GGUF_AS_IT_IS, name=given.name, model=None
    )
    order = order_of(request, home)
    with ShownProgress(order.spec.name) as progress:
        return build_order(order, progress)


def _ask(home: Path, artefact: Artefact) -> dict[str, Any]:
    from build_engines.verify.run import verify

    log_path = home / "logs" / f"verify-{artefact.manifest.name}-{artefact.manifest.variant}.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("w", encoding="utf-8") as log:
        return asdict(verify(artefact, home=home, log=log).result)


def _only(found: Sequence[Entry]) -> Entry:
    if len(found) > 1:
        variants = ", ".join(entry.variant for entry in found)
        raise ChoiceError(f"{found[0].name} has variants {variants}: choose one by --variant")
    return found[0]


def _usable(entry: Entry) -> Artefact:
    if entry.artefact is None:
        raise ArtefactError(entry.problem or f"{entry.name}/{entry.variant} is not published")
    return entry.artefact
