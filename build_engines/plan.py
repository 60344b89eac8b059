"""What `inflight build --plan` prints: the stages, their commands, room, and the kind's own tables.

Runs nothing and writes nothing; of a model that is still to be downloaded, it asks the hub for
config.json unless the spec has the numbers.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from build_engines.artefacts.artefact import find_artefact
from build_engines.checkpoints.source import local_path
from build_engines.figures import size, spaced
from build_engines.machine import THIS_MACHINE, Machine
from build_engines.pipeline import RECIPES, plan_early, published, recipe_for
from build_engines.recipe import Order, Recipe, Section
from build_engines.spec import HubSource
from build_engines.stages import Stage, StageStore, builds_dir
from build_engines.variants import GPU_KINDS, VariantLimits

_WIDTH = 100  # of a command's lines
_NUMBER = re.compile(r"[\d .]*( ?[KMG]i?B)?|-")


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
    yield _source(order)
    yield from _unused(order)
    todo = [] if is_done else store.todo(stages)
    yield from _table(_stages(stages, todo, machine, store))
    yield from _obstacles(todo, machine, order)
    yield from _commands(todo)
    if len(stages) == 1:
        yield "the rest is known when the file is here"
        return
    for section in recipe_for(order, recipes).sections(order):
        yield from _table(section)


def _source(order: Order) -> str:
    """One line: where the weights are from, and what the model is served with."""
    if order.fetched is not None:
        place = str(order.fetched)
    elif isinstance(order.source, HubSource):
        place = "/".join(filter(None, (order.source.hf, order.source.file)))
        place = f"{place} (Hugging Face, revision {order.source.revision})"
    else:
        place = str(local_path(order.source))
    length = "" if order.max_seq_len is None else f"; context of {spaced(order.max_seq_len)} tokens"
    template = order.spec.chat_template
    ours = "the checkpoint's own" if template is None else template
    return f"from {place}{length}" + ("" if order.spec.is_embedding else f"; chat template {ours}")


def _unused(order: Order) -> Iterator[str]:
    """The spec's tables that say nothing to this kind."""
    spec = order.spec
    if order.variant.kind in GPU_KINDS:
        return
    given = {"limits": spec.limits != VariantLimits(), "lora": spec.lora is not None,
             "speculative": spec.speculative is not None}  # fmt: skip
    names = [f"[{name}]" for name, is_given in given.items() if is_given]
    if names:
        yield f"kind {order.variant.kind} makes no use of {', '.join(names)}"


def _stages(stages: list[Stage], todo: list[Stage], machine: Machine, store: StageStore) -> Section:
    rows = [("stage", "state", "disk", "memory", "time")]
    for stage in stages:
        state = "to do" if stage in todo else "done"
        disk, memory = (
            size(taken) if taken else "-"
            for taken in (stage.required_bytes, stage.required_memory_bytes)
        )
        rows.append((stage.name, state, disk, memory, stage.takes))
    disk_bytes = sum(stage.required_bytes for stage in todo)
    memory_bytes = max((stage.required_memory_bytes for stage in todo), default=0)
    free = machine.free_bytes(store.root), machine.available_memory_bytes()
    rows.append(("needed", "", size(disk_bytes), size(memory_bytes), ""))
    rows.append(("free here", "", size(free[0]), size(free[1]), ""))
    return Section(title="Stages", rows=tuple(rows))


def _obstacles(todo: list[Stage], machine: Machine, order: Order) -> Iterator[str]:
    """What would end the build here; it may be planned for another machine."""
    found = list(dict.fromkeys(str(exc) for exc in machine.obstacles(todo, order.home)))
    if found:
        yield ""
        yield "Not on this machine, so far"
        yield from (f"  {message}" for message in found)


def _commands(stages: list[Stage]) -> Iterator[str]:
    for stage in stages:
        for command in stage.commands:
            yield ""
            yield f"# {stage.name}"
            yield from _wrapped(command)


def _wrapped(command: str) -> Iterator[str]:
    """A command over several lines, as a shell takes it; an option stays with its values."""
    units: list[str] = []
    for word in shlex.split(command):
        if units and not word.startswith("-"):
            units[-1] += f" {shlex.quote(word)}"
        else:
            units.append(shlex.quote(word))
    line = units[0]
    for unit in units[1:]:
        if len(line) + len(unit) > _WIDTH:
            yield f"{line} \\"
            line = f"  {unit}"
        else:
            line += f" {unit}"
    yield line


def _table(section: Section) -> Iterator[str]:
    """Numbers end in one column. A row that is cut short ends in a text that no column holds."""
    yield ""
    yield section.title
    num_columns = max((len(row) for row in section.rows), default=0)
    whole = [row for row in section.rows if len(row) == num_columns]
    columns = [
        [row[column] for row in section.rows if column < len(row) - (row not in whole)]
        for column in range(num_columns)
    ]
    widths = [max(map(len, cells), default=0) for cells in columns]
    for row in section.rows:
        cells = (
            cell.rjust(width) if _is_numeric(column[1:]) and row in whole else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=False)
        )
        yield f"  {'  '.join(cells)}".rstrip()


def _is_numeric(cells: Sequence[str]) -> bool:
    return bool(cells) and all(_NUMBER.fullmatch(cell) for cell in cells)
