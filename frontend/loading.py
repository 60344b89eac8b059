"""Loading a model: choose its variant, build one that can be built, let the engine serve it."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

from build_engines.artefacts.artefact import Artefact, find_artefact
from build_engines.errors import ArtefactError
from build_engines.spec import buildable_variants
from frontend.catalog import Catalog
from frontend.context import ModelRepository
from frontend.errors import ModelLoadFailed, ModelNotFound

logger = logging.getLogger(__name__)


async def load_variant(
    catalog: Catalog,
    repository: ModelRepository,
    *,
    home: Path,
    name: str,
    quantization: str | None,
    prefer_gpu: bool,
) -> Artefact:
    """Serve the variant that fits best; one that is not built yet, but can be here, is built.

    Raises:
        ModelNotFound, VariantNotFound: nothing fits; the variants there are, are named.
        ModelLoadFailed: building or loading it went wrong.
    """
    catalog.check_visible(name)
    buildable = buildable_variants(name)
    catalog.rescan()
    if quantization in buildable and not _is_published(catalog, name, str(quantization)):
        await _build(home, name, str(quantization))
        catalog.rescan()
    artefact = catalog.get(name).choose(
        quantization=quantization,
        prefer_gpu=prefer_gpu,
        has_gpu=has_gpu(),
        buildable=buildable,
    )
    current = _current(home, artefact)
    await repository.load(current)
    return current


def _is_published(catalog: Catalog, name: str, quantization: str) -> bool:
    """Whether a variant is called or quantized so: it is loaded as it is, whatever checkpoint it
    was built from. To build another one in its place is what `inflight build` is for."""
    try:
        artefacts = catalog.get(name).artefacts
    except ModelNotFound:
        return False
    manifests = [artefact.manifest for artefact in artefacts]
    return any(quantization in (one.variant, one.quantization) for one in manifests)


def has_gpu() -> bool:
    """Whether this machine has an NVIDIA GPU."""
    return Path("/dev/nvidia0").exists()


def _current(home: Path, artefact: Artefact) -> Artefact:
    """The current version of what was chosen: the catalog knows others where it is damaged."""
    name, variant = artefact.manifest.name, artefact.manifest.variant
    try:
        return find_artefact(home, name, variant) or artefact
    except ArtefactError as exc:
        raise ModelLoadFailed(model=name, reason=str(exc)) from exc


async def _build(home: Path, name: str, variant: str) -> None:
    """Build in a process of its own: it takes seconds of CPU and much memory."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "build_engines", name, "--variant", variant, "--home", str(home)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, stderr = await process.communicate()
    except asyncio.CancelledError:
        process.terminate()  # the client has gone; the stages that are done stay
        await process.wait()
        raise
    if process.returncode:
        reason = stderr.decode(errors="replace").strip().rpartition("\n")[2]
        logger.error("build failed", extra={"model": name, "variant": variant, "reason": reason})
        raise ModelLoadFailed(model=name, reason=reason)
