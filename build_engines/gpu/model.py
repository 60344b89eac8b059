"""Which model a GPU recipe is asked for: its family and its numbers."""

from __future__ import annotations

from build_engines.checkpoints.architecture import Architecture
from build_engines.errors import ChoiceError, SpecError
from build_engines.families.family import Family
from build_engines.families.table import FAMILIES, family_of
from build_engines.recipe import Order


def ordered_model(order: Order, *, needs: str) -> tuple[Family, Architecture]:
    """`needs` begins the sentence that refuses a GGUF file.

    Raises SpecError for a model of which too little is known, ChoiceError for a GGUF file.
    """
    if order.architecture is None:
        raise SpecError(
            f"{order.spec.name} has no [architecture], and its checkpoint is not here yet: give it "
            "by --checkpoint, or write its numbers into the spec"
        )
    if order.checkpoint is not None and order.checkpoint.format != "hf":
        raise ChoiceError(
            f"{needs}, this one is a GGUF file: give the folder, or serve the file as it is "
            "(--variant gguf)"
        )
    name = order.spec.family
    if name is None:
        return family_of(order.architecture), order.architecture
    if name not in FAMILIES:
        raise SpecError(f"there is no family {name}: choose {', '.join(FAMILIES)}")
    return FAMILIES[name], order.architecture
