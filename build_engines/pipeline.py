"""Builds a variant of a model and publishes it: what is the same for every kind of artefact.

Cheap to import, and to call for what is published already: recipes import their libraries late.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from build_engines.artefact import (
    Artefact,
    artefact_dir,
    find_artefact,
    models_dir,
    publish,
)
from build_engines.assembly import assemble
from build_engines.checkpoint import open_checkpoint
from build_engines.cpu_recipe import CpuRecipe
from build_engines.embedding_recipe import EmbeddingRecipe
from build_engines.errors import ChoiceError, DiskSpaceError, MemoryShortError
from build_engines.gguf_recipe import GgufRecipe
from build_engines.llm_api_recipe import LlmApiRecipe
from build_engines.lock import build_lock, try_build_lock
from build_engines.optimum_recipe import OptimumRecipe
from build_engines.ordering import order_for, variant_of, with_family
from build_engines.progress import WAIT, Progress, silent
from build_engines.recipe import BuildPlan, Order, Recipe
from build_engines.source import fetch_stage, fetched_path, local_path
from build_engines.spec import Spec, load_spec
from build_engines.stages import Finished, Stage, StageStore, builds_dir, failures_in_log
from build_engines.tensorrt_recipe import TensorRtRecipe

# By Variant.recipe
RECIPES: Mapping[str, Recipe] = {
    "cpu": CpuRecipe(),
    "embedding": EmbeddingRecipe(),
    "tensorrt_llm": TensorRtRecipe(),
    "llm_api": LlmApiRecipe(),
    "optimum": OptimumRecipe(),
    "llama_cpp": GgufRecipe(),
}
STAGING_SUFFIX = ".building"
FULL_BYTES = 1 << 20  # a disk with less is taken for full


def free_bytes(path: Path) -> int:
    """Room on the file system of a directory, be it there yet or not."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a build may use."""

    free_bytes: Callable[[Path], int] = free_bytes
    available_memory_bytes: Callable[[], int] = lambda: int(psutil.virtual_memory().available)


THIS_MACHINE = Machine()


def build(
    spec: str | Spec,
    variant: str | None,
    home: Path,
    progress: Progress = silent,
    *,
    recipes: Mapping[str, Recipe] = RECIPES,
    machine: Machine = THIS_MACHINE,
) -> Artefact:
    """The published artefact of a model's variant (None: the default one), built if need be.

    Raises BuildError.
    """
    spec = load_spec(spec) if isinstance(spec, str) else spec
    return build_order(order_for(spec, variant, home), progress, recipes=recipes, machine=machine)


def build_order(
    order: Order,
    progress: Progress = silent,
    *,
    recipes: Mapping[str, Recipe] = RECIPES,
    machine: Machine = THIS_MACHINE,
) -> Artefact:
    """The published artefact of an order, built unless it is there.

    Two builds of one thing exclude each other: the second waits and returns what the first has
    built. A build that fails or is killed leaves nothing but finished stages, which the next one
    goes on from. Raises BuildError.
    """
    if (found := _published(order)) is not None:
        return found
    name, variant = order.spec.name, order.variant.name
    with build_lock(order.home, name, variant, on_wait=lambda: progress(WAIT, 0, 0)):
        if (found := _published(order)) is not None:
            return found
        collect_leftovers(order.home)
        with _full_disk_is_named(order.home, machine):
            return _build(order, recipes, progress, machine)


def _published(order: Order) -> Artefact | None:
    """What is current, if it is what is ordered."""
    found = find_artefact(order.home, order.spec.name, order.variant.name)
    if found is None or order.key in (None, found.manifest.order_key):
        return found
    return None


def recipe_for(order: Order, recipes: Mapping[str, Recipe] = RECIPES) -> Recipe:
    """Who builds the variant. Raises ChoiceError."""
    recipe = recipes.get(order.variant.recipe)
    if recipe is None:
        known = ", ".join(recipes)
        raise ChoiceError(
            f"{order.spec.name}/{order.variant.name}: {order.variant.recipe} cannot be built here, "
            f"only {known}"
        )
    return recipe


def collect_leftovers(home: Path) -> None:
    """Deletes what builders that died have half published; the lock tells the living ones."""
    for path in models_dir(home).glob(f"*/.*{STAGING_SUFFIX}"):
        variant = path.name.removeprefix(".").removesuffix(STAGING_SUFFIX)
        with try_build_lock(home, path.parent.name, variant) as is_dead:
            if is_dead:
                shutil.rmtree(path)


def _build(
    order: Order, recipes: Mapping[str, Recipe], progress: Progress, machine: Machine
) -> Artefact:
    store = StageStore(builds_dir(order.home, order.spec.name, order.variant.name))
    store.root.mkdir(parents=True, exist_ok=True)
    store.discard_partial()
    with failures_in_log(store.log):
        fetch = fetch_stage(order.source, order.home)
        early = with_what_is_here(order, store.find(fetch))
        if early.architecture is not None:  # known before anything is fetched: so is what it takes
            plan = recipe_for(early, recipes).plan(early)
            _check_machine(order, [fetch, *plan.stages], store, machine)
        finished = store.run(fetch, progress)
        order = with_checkpoint(order, fetched_path(finished.path))
        plan = recipe_for(order, recipes).plan(order)
        _check_machine(order, plan.stages, store, machine)
        for stage in plan.stages:
            store.run(stage, progress)
        artefact = _publish(order, plan, store, progress)
    store.collect()
    return artefact


def with_what_is_here(order: Order, fetched: Finished | None) -> Order:
    """The order with its checkpoint, if that is on this machine already."""
    if fetched is not None:
        return with_checkpoint(order, fetched_path(fetched.path))
    path = local_path(order.source)
    return order if path is None else with_checkpoint(order, path)


def with_checkpoint(order: Order, path: Path) -> Order:
    """The order, once its checkpoint is here. Raises SourceError for one that is not whole."""
    if order.spec.is_embedding:  # no causal language model: its recipe reads the folder itself
        return replace(order, fetched=path)
    checkpoint = open_checkpoint(path)
    spec = with_family(order.spec, checkpoint)
    variant = variant_of(spec, order.variant.name)
    return replace(order, spec=spec, variant=variant, fetched=path, checkpoint=checkpoint)


def _publish(order: Order, plan: BuildPlan, store: StageStore, progress: Progress) -> Artefact:
    progress("publish", 0, 1)
    done = {name: finished.path for name, finished in store.before.items()}
    with _staging(order) as directory:
        candidate = assemble(order, plan.layout, plan.describe, done, directory)
        artefact = publish(order.home, directory, candidate.manifest)
    progress("publish", 1, 1)
    return artefact


@contextmanager
def _staging(order: Order) -> Iterator[Path]:
    """A directory beside the place of publication, gone afterwards; for the lock's holder."""
    name = f".{order.variant.name}{STAGING_SUFFIX}"
    root = artefact_dir(order.home, order.spec.name, name)
    shutil.rmtree(root, ignore_errors=True)
    try:
        root.mkdir(parents=True)
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def _full_disk_is_named(home: Path, machine: Machine) -> Iterator[None]:
    """Raises DiskSpaceError for what fails on a full disk: every library words that its own way."""
    try:
        yield
    except Exception as exc:
        number = exc.errno if isinstance(exc, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT) or machine.free_bytes(home) < FULL_BYTES:
            message = f"the disk of {home} is full: make room and build again"
            raise DiskSpaceError(message) from exc
        raise


def _check_machine(
    order: Order, stages: Sequence[Stage], store: StageStore, machine: Machine
) -> None:
    """Raises what would end the build on this machine, before any work is done."""
    todo = store.todo(stages)
    for stage in todo:
        stage.check()
    required, free = sum(stage.required_bytes for stage in todo), machine.free_bytes(store.root)
    if free < required:
        raise DiskSpaceError(
            f"the build needs {required / 1e6:.0f} MB in {order.home}, {free / 1e6:.0f} MB are "
            "free: make room or choose another directory by --home"
        )
    memory = max((stage.required_memory_bytes for stage in todo), default=0)
    available = machine.available_memory_bytes()
    if available < memory:
        raise MemoryShortError(
            f"the build needs {memory / 1e6:.0f} MB of memory, {available / 1e6:.0f} MB are free: "
            "end other programs, choose a smaller variant or build on a larger machine"
        )
