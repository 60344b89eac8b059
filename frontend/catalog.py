"""Which models there are on this machine: their built variants, tokenizers and special tokens.

Reads published artefacts only; whether Triton serves one now is `frontend/triton/repository.py`'s.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from build_engines.artefacts.artefact import (
    Artefact,
    artefact_dir,
    find_artefact,
    list_artefacts,
    read_artefact,
)
from build_engines.artefacts.versions import current_version
from build_engines.errors import ArtefactError
from frontend.access.identity import current_identity
from frontend.errors import ModelNotFound, ModelNotLoaded, VariantNotFound
from frontend.text.output_format import OutputFormat, output_format
from frontend.text.tokenizer import TextTokenizer
from frontend.types import LoadedModel, ServedVersion

K = TypeVar("K")
V = TypeVar("V")

logger = logging.getLogger(__name__)

DEFAULT_ALIAS = "default"
GPU_KINDS = frozenset({"tensorrt_llm", "llm_api"})
MAX_REMEMBERED = 64  # versions; a server may outlive many
RESCAN_S = 1.0  # a model that is built while we run is seen after this long


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogModel:
    """A model and its built variants, in the order of their names."""

    name: str
    artefacts: tuple[Artefact, ...]

    @property
    def variants(self) -> list[str]:
        return [artefact.manifest.variant for artefact in self.artefacts]

    @property
    def adapters(self) -> list[str]:
        """Names of the LoRA adapters of any variant that who asks may use."""
        every = {name for artefact in self.artefacts for name in artefact.manifest.adapters}
        return visible_adapters(self.name, every)

    @property
    def names(self) -> list[str]:
        """What who asks may call it: with an adapter's name behind a colon, too."""
        own = [self.name] if current_identity.get().may_use(self.name) else []
        return [*own, *(f"{self.name}:{adapter}" for adapter in self.adapters)]

    def artefact(self, variant: str) -> Artefact:
        """The current version of a variant; of any other one when it is not there."""
        by_variant = {artefact.manifest.variant: artefact for artefact in self.artefacts}
        return by_variant.get(variant, self.artefacts[0])

    def choose(
        self,
        *,
        quantization: str | None,
        prefer_gpu: bool,
        has_gpu: bool,
        buildable: Sequence[str] = (),
    ) -> Artefact:
        """Pick the variant to load.

        A GPU variant is taken with `prefer_gpu` where one is built and a GPU is there, a CPU
        variant otherwise; without `quantization` the first of its kind, q8_0 before others.

        Raises:
            VariantNotFound: names the variants there are, those that are yet to be built included.
        """
        fitting = [
            artefact
            for artefact in self.artefacts
            if quantization in (None, artefact.manifest.quantization, artefact.manifest.variant)
            and (has_gpu or artefact.manifest.kind not in GPU_KINDS)
        ]
        if not fitting:
            raise VariantNotFound(
                model=self.name,
                wanted=quantization or "this machine",
                variants=", ".join(sorted({*buildable, *self.variants})),
            )
        return min(
            fitting,
            key=lambda artefact: (
                (artefact.manifest.kind in GPU_KINDS) is not prefer_gpu,
                artefact.manifest.variant != quantization,
                artefact.manifest.variant != "q8_0",
            ),
        )


def visible_adapters(model: str, adapters: Iterable[str]) -> list[str]:
    """Those that who asks may use."""
    identity = current_identity.get()
    return sorted(name for name in adapters if identity.may_use(f"{model}:{name}"))


class Catalog:
    """The models of one home folder. Who may not use a model finds none by its name."""

    def __init__(self, home: Path, *, default_model: str) -> None:
        self._home = home
        self._default_model = default_model
        self._models: dict[str, CatalogModel] = {}
        self._scanned_at = float("-inf")
        # Versions that the engine has run, by the number of the load and the directory.
        self._served: dict[tuple[ServedVersion | None, str], Artefact] = {}
        self._tokenizers: dict[str, TextTokenizer] = {}
        self._fingerprints: dict[str, str] = {}

    def models(self) -> list[CatalogModel]:
        """All models of which who asks may use anything, by name."""
        self._rescan(max_age_s=RESCAN_S)
        return [model for model in self._models.values() if model.names]

    def resolve_name(self, name: str | None) -> str:
        """What "default" and a missing name stand for."""
        return self._default_model if name in (None, "", DEFAULT_ALIAS) else str(name)

    def get(self, name: str | None) -> CatalogModel:
        """Find a model by its name.

        Raises:
            ModelNotFound: there is no such model for who asks.
        """
        self.check_visible(name)
        return self._find(name)

    def check_visible(self, name: str | None) -> None:
        """
        Raises:
            ModelNotFound: who asks may not use it; nothing is said of whether it is there.
        """
        model, colon, adapter = (name or DEFAULT_ALIAS).partition(":")
        whole = f"{self.resolve_name(model)}{colon}{adapter}"
        if not current_identity.get().may_use(whole):
            # by the name that was given: what "default" stands for is not theirs to know
            raise ModelNotFound(model=name or DEFAULT_ALIAS, param="model")

    def _find(self, name: str | None) -> CatalogModel:
        resolved = self.resolve_name(name)
        if resolved not in self._models:
            self._rescan(max_age_s=RESCAN_S)
        try:
            return self._models[resolved]
        except KeyError:
            raise ModelNotFound(model=name or resolved, param="model") from None

    def get_with_adapter(self, name: str | None) -> tuple[CatalogModel, str | None]:
        """Find the model of `model:adapter`; the adapter is whatever stands there, or None.

        Raises:
            ModelNotFound: there is no such model for who asks.
        """
        model, colon, adapter = (name or "").partition(":")
        self.check_visible(name)
        return self._find(model), adapter if colon else None

    def rescan(self) -> None:
        """See what has been built since; a load does it before it chooses a variant."""
        self._rescan(max_age_s=0)

    def served(self, loaded: LoadedModel) -> Artefact:
        """The version that the engine runs; another one may be current by now.

        Raises:
            ModelNotFound, ModelNotLoaded: its files have been deleted.
        """
        model = self._find(loaded.name)
        if not loaded.artefact_dir:
            return model.artefact(loaded.variant)
        key = (loaded.served, loaded.artefact_dir)
        known = self._served.get(key)
        if known is not None:
            return known
        # The engine may run where the home folder has another path.
        *_, variant, version = Path(loaded.artefact_dir).parts
        try:
            artefact = read_artefact(artefact_dir(self._home, loaded.name, variant) / version)
        except ArtefactError as exc:
            logger.error("served version cannot be read", extra={"reason": str(exc)})
            raise ModelNotLoaded(model=loaded.name) from exc
        _remember(self._served, key, artefact)
        return artefact

    def current(self, loaded: LoadedModel) -> Artefact | None:
        """What should be served in place of this; None: it is the current version, or has none.

        Raises:
            ArtefactError: the current version is damaged.
        """
        if not loaded.artefact_dir:
            return None
        *_, variant, version = Path(loaded.artefact_dir).parts
        number = current_version(artefact_dir(self._home, loaded.name, variant))
        if number is None or str(number) == version:
            return None
        return find_artefact(self._home, loaded.name, variant)

    def tokenizer(self, artefact: Artefact) -> TextTokenizer:
        """The tokenizer of an artefact, read once (about 0.1 s)."""
        key = artefact.content_hash
        tokenizer = self._tokenizers.get(key)
        if tokenizer is None:
            tokenizer = TextTokenizer(artefact.path / "tokenizer")
            _remember(self._tokenizers, key, tokenizer)
        return tokenizer

    def output_format(self, artefact: Artefact, chat_template: str | None = None) -> OutputFormat:
        """How the model writes: as its artefact says, or its chat template (or another one)."""
        manifest = artefact.manifest
        return output_format(
            chat_template or self.tokenizer(artefact).chat_template,
            tool_parser=manifest.tool_parser,
            reasoning_parser=manifest.reasoning_parser,
        )

    def fingerprint(self, artefact: Artefact) -> str:
        """The same for equal weights and tokenizer, whenever and wherever they were built."""
        key = artefact.content_hash
        fingerprint = self._fingerprints.get(key)
        if fingerprint is None:
            files = sorted(artefact.manifest.files.items())
            lines = [artefact.manifest.kind, *(f"{path} {entry.sha256}" for path, entry in files)]
            digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
            fingerprint = f"fp_{digest[:10]}"
            _remember(self._fingerprints, key, fingerprint)
        return fingerprint

    def _rescan(self, *, max_age_s: float) -> None:
        now = time.monotonic()
        if now - self._scanned_at < max_age_s:
            return
        self._scanned_at = now
        by_name: dict[str, list[Artefact]] = {}
        for artefact in list_artefacts(self._home, takes_others=True):
            by_name.setdefault(artefact.manifest.name, []).append(artefact)
        self._models = {
            name: CatalogModel(name=name, artefacts=tuple(artefacts))
            for name, artefacts in sorted(by_name.items())
        }


def _remember(memory: dict[K, V], key: K, value: V) -> None:
    """Keep a value, and forget the oldest of too many."""
    memory[key] = value
    if len(memory) > MAX_REMEMBERED:
        del memory[next(iter(memory))]
