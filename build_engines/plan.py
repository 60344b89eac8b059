"""What `inflight build --plan` prints: the stages, their commands, room, and the kind's own tables.

Runs nothing and writes nothing; of a model that is still to be downloaded, it asks the hub for
config.json unless the spec has the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from build_engines.artefacts.artefact import find_artefact
from build_engines.errors import BuildError
from build_engines.machine import THIS_MACHINE, Machine
from build_engines.pipeline import RECIPES, plan_early, published, recipe_for
from build_engines.recipe import Order, Recipe, Section
from build_engines.stages import Stage, StageStore, builds_dir


def plan_lines(
    order: Order,
    *,
    recipes: Mapping[str, Recipe] = RECIPES,
    machine: Machine = THIS_MACHINE,
) -> Iterator[str]:
    """The plan of an order, line by line. Raises BuildError as the build itself would."""
    store = StageStore(builds_dir(order.home, order.spec.name, order.variant.name))
    order, stages = plan_early(order, recipes, store)
    variant = order.variant
    yield f"{order.spec.name}/{variant.name}: kind {variant.kind}, {variant.quantization}"
    found = find_artefact(order.home, order.spec.name, variant.name)
    is_done = published(order) is not None
    if found is not None:
        rest = ": nothing is to be done" if is_done else "; this would be the next one"
        yield f"version {found.manifest.version} is published{rest}"
    todo = [] if is_done else store.todo(stages)
    yield from _table(_stages(stages, todo, machine, store))
    yield from _obstacle(todo, machine, order)
    yield from _commands(todo)
    if len(stages) == 1:
        yield "the rest is known when the file is here"
        return
    for section in recipe_for(order, recipes).sections(order):
        yield from _table(section)


def _stages(stages: list[Stage], todo: list[Stage], machine: Machine, store: StageStore) -> Section:
    rows = [("stage", "state", "disk", "memory")]
    for stage in stages:
        state = "to do" if stage in todo else "done"
        rows.append(
            (stage.name, state, size(stage.required_bytes), size(stage.required_memory_bytes))
        )
    disk = sum(stage.required_bytes for stage in todo)
    memory = max((stage.required_memory_bytes for stage in todo), default=0)
    free = machine.free_bytes(store.root), machine.available_memory_bytes()
    rows.append(("needed", "", size(disk), size(memory)))
    rows.append(("free here", "", size(free[0]), size(free[1])))
    return Section(title="Stages", rows=tuple(rows))


def _obstacle(todo: list[Stage], machine: Machine, order: Order) -> Iterator[str]:
    """What would end the build here; it may be planned for another machine."""
    try:
        machine.check(todo, order.home)
    except BuildError as exc:
        yield ""
        yield f"Not on this machine: {exc}"


def _commands(stages: list[Stage]) -> Iterator[str]:
    commands = [command for stage in stages for command in stage.commands]
    if commands:
        yield ""
        yield "Commands"
        yield from commands


def _table(section: Section) -> Iterator[str]:
    yield ""
    yield section.title
    num_columns = max((len(row) for row in section.rows), default=0)
    widths = [
        max(len(row[column]) for row in section.rows if column < len(row))
        for column in range(num_columns)
    ]
    for row in section.rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        yield f"  {'  '.join(cells)}".rstrip()


def size(num_bytes: int) -> str:
    """Bytes for people; nothing for none."""
    if num_bytes == 0:
        return "-"
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"
