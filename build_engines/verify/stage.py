"""The stage that verifies a candidate of every kind before it is published. Cheap to import."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from build_engines.artefacts.artefact import write_manifest
from build_engines.assembly import assemble
from build_engines.recipe import Describe, Order
from build_engines.stages import Stage, StageContext
from build_engines.variants import GPU_KINDS
from build_engines.verify.verified import RECORD_FOLDER, VERIFY

if TYPE_CHECKING:
    from build_engines.verify.oracle import Oracle

_CANDIDATE = "candidate"

FindOracle = Callable[[Mapping[str, Path]], "Oracle | None"]


def verify_stage(
    order: Order,
    *,
    layout: Mapping[str, str],
    describe: Describe,
    find_oracle: FindOracle = lambda done: None,
    inputs: Mapping[str, Any] | None = None,
    required_memory_bytes: int = 0,
) -> Stage:
    """The stage behind all others of a plan.

    Args:
        layout, describe: the plan's; the candidate is put together as the artefact will be.
        find_oracle: the unquantized model, from the stages' directories; for kinds that have one.
        inputs: what else the outcome depends on.
    """
    return Stage(
        name=VERIFY,
        inputs={
            "verify": msgspec.to_builtins(order.spec.verify),
            "tolerance": order.variant.tolerance,
            **(inputs or {}),
        },
        run=lambda out, context: _run(order, out, context, layout, describe, find_oracle),
        required_memory_bytes=required_memory_bytes,
        check=lambda: _check(order),
    )


def _check(order: Order) -> None:
    """Raises VerificationError where no Triton could load what the build makes in hours."""
    if order.variant.kind in GPU_KINDS:
        from build_engines.verify.run import require_triton

        require_triton(order.home, order.variant.kind)


def _run(
    order: Order,
    out: Path,
    context: StageContext,
    layout: Mapping[str, str],
    describe: Describe,
    find_oracle: FindOracle,
) -> None:
    from build_engines.verify.record import RECORD_NAME
    from build_engines.verify.run import verify

    candidate = out / _CANDIDATE
    candidate.mkdir()
    artefact = assemble(order, layout, describe, context.done, candidate)
    write_manifest(candidate, artefact.manifest)
    record = out / RECORD_FOLDER / RECORD_NAME
    record.parent.mkdir()
    with context.log.open("a", encoding="utf-8") as log:
        verified = verify(
            artefact,
            home=order.home,
            log=log,
            golden=order.spec.verify,
            oracle=find_oracle(context.done),
            tolerance=order.variant.tolerance,
            record_to=record,
        )
    shutil.rmtree(candidate)
    verified.write(out)
