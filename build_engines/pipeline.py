"""Builds a variant of a model and publishes it: what is the same for every kind of artefact.

Cheap to import, and to call for what is published already: recipes import their libraries late.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from build_engines.artefacts.artefact import (
    Artefact,
    artefact_dir,
    find_artefact,
    models_dir,
    publish,
)
from build_engines.assembly import assemble
from build_engines.checkpoints import hub
from build_engines.checkpoints.architecture import Architecture
from build_engines.checkpoints.checkpoint import open_checkpoint
from build_engines.checkpoints.source import fetch_stage, fetched_path, local_path
from build_engines.cpu.embedding_recipe import EmbeddingRecipe
from build_engines.cpu.gguf_recipe import GgufRecipe
from build_engines.cpu.optimum_recipe import OptimumRecipe
from build_engines.cpu.recipe import CpuRecipe
from build_engines.errors import ChoiceError
from build_engines.llm_api.recipe import LlmApiRecipe
from build_engines.lock import build_lock, try_build_lock
from build_engines.machine import THIS_MACHINE, Machine
from build_engines.ordering import check_tokens, order_for, variant_of, with_family
from build_engines.progress import WAIT, Progress, silent
from build_engines.recipe import BuildPlan, Order, Recipe
from build_engines.spec import HubSource, Spec, load_spec
from build_engines.stages import Finished, Stage, StageStore, builds_dir, failures_in_log
from build_engines.tensorrt.recipe import TensorRtRecipe

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
    if (found := published(order)) is not None:
        return found
    name, variant = order.spec.name, order.variant.name
    with build_lock(order.home, name, variant, on_wait=lambda: progress(WAIT, 0, 0)):
        if (found := published(order)) is not None:
            return found
        collect_leftovers(order.home)
        store = StageStore(builds_dir(order.home, name, variant))
        store.root.mkdir(parents=True, exist_ok=True)
        store.discard_partial()
        try:
            with machine.full_disk_is_named(order.home), failures_in_log(store.log):
                return _build(order, recipes, store, progress, machine)
        finally:
            store.discard_partial()


def published(order: Order) -> Artefact | None:
    """What is current, if it is what is ordered. Reads a manifest, and no weights."""
    found = find_artefact(order.home, order.spec.name, order.variant.name)
    return found if found is not None and found.manifest.order_key == order.key else None


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
    order: Order,
    recipes: Mapping[str, Recipe],
    store: StageStore,
    progress: Progress,
    machine: Machine,
) -> Artefact:
    _, stages = plan_early(order, recipes, store)
    machine.check(store.todo(stages), order.home)
    finished = store.run(stages[0], progress)
    order = with_checkpoint(order, fetched_path(finished.path))
    plan = recipe_for(order, recipes).plan(order)
    machine.check(store.todo(plan.stages), order.home)
    for stage in plan.stages:
        store.run(stage, progress)
    artefact = _publish(order, plan, store, progress)
    store.collect()
    return artefact


def plan_early(
    order: Order, recipes: Mapping[str, Recipe], store: StageStore
) -> tuple[Order, list[Stage]]:
    """What is known before anything is fetched: the order with all that is here or cheap to ask
    for, and its stages, `fetch` first. Of a GGUF file that is still on the hub, nothing is known.

    Raises BuildError for what cannot be built.
    """
    fetch = fetch_stage(order.source, order.home)
    order = _with_what_is_here(order, store.find(fetch))
    if order.architecture is None and not order.spec.is_embedding:
        return order, [fetch]
    if order.fetched is None:
        fetch = replace(fetch, required_bytes=_download_bytes(order))
    return order, [fetch, *recipe_for(order, recipes).plan(order).stages]


def _with_what_is_here(order: Order, fetched: Finished | None) -> Order:
    """With the checkpoint if it is on this machine already, else with the numbers of its model."""
    if fetched is not None:
        return with_checkpoint(order, fetched_path(fetched.path))
    path = local_path(order.source)
    if path is not None:
        return with_checkpoint(order, path)
    source = order.source
    if order.architecture is not None or not isinstance(source, HubSource) or source.file:
        return order
    architecture = Architecture.from_config(hub.read_config(source))
    spec = replace(order.spec, architecture=architecture)
    return replace(order, spec=spec, variant=variant_of(spec, order.variant.name))


def _download_bytes(order: Order) -> int:
    """About what is still to be downloaded of a checkpoint in 16 bits."""
    assert isinstance(order.source, HubSource)  # all others are here
    num_parameters = order.architecture.num_parameters if order.architecture else 0
    return max(0, 2 * num_parameters - hub.downloaded_bytes(order.source, order.home))


def with_checkpoint(order: Order, path: Path) -> Order:
    """The order, once its checkpoint is here.

    Raises SourceError for one that is not whole, SpecError for one of another model.
    """
    if order.spec.is_embedding:  # no causal language model: its recipe reads the folder itself
        return replace(order, fetched=path)
    checkpoint = open_checkpoint(path)
    check_tokens(order.spec, checkpoint)
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
