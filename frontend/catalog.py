"""Which models there are on this machine: their built variants, tokenizers and special tokens.

Reads published artefacts only; whether Triton serves one now is `frontend/triton/repository.py`'s.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from build_engines.artefact import Artefact, list_artefacts
from frontend.errors import ModelNotFound, VariantNotFound
from frontend.text.output_format import OutputFormat, output_format
from frontend.text.tokenizer import TextTokenizer

DEFAULT_ALIAS = "default"
GPU_KINDS = frozenset({"tensorrt_llm", "llm_api"})
RESCAN_S = 1.0  # a model that is built while we run is seen after this long


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogModel:
    """A model and its built variants, in the order of their names."""

    name: str
    artefacts: tuple[Artefact, ...]

    @property
    def variants(self) -> list[str]:
        return [artefact.manifest.variant for artefact in self.artefacts]

    def artefact(self, variant: str) -> Artefact:
        """The artefact of a variant; any other one when it is gone, for they share a tokenizer."""
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
                artefact.manifest.variant != "q8_0",
            ),
        )


class Catalog:
    """The models of one home folder."""

    def __init__(self, home: Path, *, default_model: str) -> None:
        self._home = home
        self._default_model = default_model
        self._models: dict[str, CatalogModel] = {}
        self._scanned_at = float("-inf")
        self._tokenizers: dict[Path, TextTokenizer] = {}
        self._fingerprints: dict[Path, str] = {}

    def models(self) -> list[CatalogModel]:
        """All models, by name."""
        self._rescan(max_age_s=RESCAN_S)
        return list(self._models.values())

    def resolve_name(self, name: str | None) -> str:
        """What "default" and a missing name stand for."""
        return self._default_model if name in (None, "", DEFAULT_ALIAS) else str(name)

    def get(self, name: str | None) -> CatalogModel:
        """Find a model by its name.

        Raises:
            ModelNotFound: there is no such model.
        """
        resolved = self.resolve_name(name)
        if resolved not in self._models:
            self._rescan(max_age_s=RESCAN_S)
        try:
            return self._models[resolved]
        except KeyError:
            raise ModelNotFound(model=name or resolved, param="model") from None

    def rescan(self) -> None:
        """See what has been built since; a load does it before it chooses a variant."""
        self._rescan(max_age_s=0)

    def tokenizer(self, artefact: Artefact) -> TextTokenizer:
        """The tokenizer of an artefact, read once (about 0.1 s)."""
        tokenizer = self._tokenizers.get(artefact.path)
        if tokenizer is None:
            tokenizer = self._tokenizers[artefact.path] = TextTokenizer(artefact.path / "tokenizer")
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
        fingerprint = self._fingerprints.get(artefact.path)
        if fingerprint is None:
            files = sorted(artefact.manifest.files.items())
            lines = [artefact.manifest.kind, *(f"{path} {entry.sha256}" for path, entry in files)]
            digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
            fingerprint = self._fingerprints[artefact.path] = f"fp_{digest[:10]}"
        return fingerprint

    def _rescan(self, *, max_age_s: float) -> None:
        now = time.monotonic()
        if now - self._scanned_at < max_age_s:
            return
        self._scanned_at = now
        by_name: dict[str, list[Artefact]] = {}
        for artefact in list_artefacts(self._home):
            by_name.setdefault(artefact.manifest.name, []).append(artefact)
        self._models = {
            name: CatalogModel(name=name, artefacts=tuple(artefacts))
            for name, artefacts in sorted(by_name.items())
        }
