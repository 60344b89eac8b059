"""What the pipeline needs to know of a kind of artefact: its stages, and what came out of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from build_engines.artefacts.artefact import Adapter, EngineFacts, Limits, SpecialTokens
from build_engines.checkpoints.architecture import Architecture
from build_engines.checkpoints.checkpoint import Checkpoint
from build_engines.spec import Source, Spec
from build_engines.stages import Stage
from build_engines.variants import Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be built. `fetched` and `checkpoint` are there once the fetch stage is done.

    Only a plan (`--plan`) is made without them.
    """

    spec: Spec
    variant: Variant
    source: Source
    home: Path
    fetched: Path | None = None  # the checkpoint's folder or GGUF file
    checkpoint: Checkpoint | None = None  # `fetched`, opened; None for embedding models
    key: str = ""  # hash of what was asked for: what is published for another is not this

    @property
    def architecture(self) -> Architecture | None:
        """The checkpoint's if it is there, else the spec's."""
        return self.checkpoint.architecture if self.checkpoint else self.spec.architecture

    @property
    def max_seq_len(self) -> int | None:
        """Tokens of prompt and output: the variant's, the spec's, or what the model is made for."""
        given = self.variant.max_seq_len or self.spec.max_seq_len
        architecture = self.architecture
        return given or (architecture.max_position_embeddings if architecture else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Produced:
    """What only the recipe knows of the artefact that it made; the fields are the manifest's."""

    format: str
    source: dict[str, str]
    tools: dict[str, str]
    limits: Limits
    tokens: SpecialTokens
    quantization: str | None = None  # None: the variant's
    embedding_size: int | None = None
    engine: EngineFacts | None = None
    adapters: Mapping[str, Adapter] = field(default_factory=dict)


class Describe(Protocol):
    """Reads back what the stages made: their directories by name, `fetch` among them.

    Called before `verify` too, to make a candidate to verify; then it is not among them.
    """

    def __call__(self, done: Mapping[str, Path]) -> Produced: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """The stages behind `fetch`, in order, and how the artefact is put together from them.

    `layout`: stage -> folder of the artefact that its files are linked into; "" is the top.
    """

    stages: tuple[Stage, ...]
    layout: Mapping[str, str]
    describe: Describe


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A table that `--plan` prints: rows of cells, the first row being the heads."""

    title: str
    rows: tuple[tuple[str, ...], ...]


class Recipe(Protocol):
    """Makes the artefacts of one kind. Cheap to make a plan with: large libraries come later."""

    def plan(self, order: Order) -> BuildPlan:
        """The stages. Raises BuildError for what cannot be built, with what would work."""
        ...

    def sections(self, order: Order) -> list[Section]:
        """What `--plan` shows of this kind beside the stages: memory, fit, launch lines."""
        ...
