"""verification.json: what a later verification holds a model to. Nothing in it changes from run to
run, so that a build that is done again gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from build_engines.artefacts.artefact import Artefact, list_artefacts
from build_engines.errors import VerificationError
from build_engines.spec import EmbeddingVerification
from build_engines.verify.rules import ScoredText
from build_engines.verify.texts import Question

RECORD_NAME = "verification.json"  # beside the weights
UNQUANTIZED = ("bf16", "fp16", "f16", "f32")
_DIGITS = 3


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was expected of a model, and of whom."""

    reference: str  # whose log-probs those of `texts` are
    noise: float = 0.0  # nats by which these are wrong themselves, on average
    tolerance: float | None = None  # that the model beside it was allowed, besides the noise
    texts: list[ScoredText] = []
    question: Question | None = None  # the spec's
    embedding: EmbeddingVerification | None = None  # of a model that makes embeddings

    def write(self, path: Path) -> None:
        """Rounded: what is left out is noise."""
        texts = [
            ScoredText(text.token_ids, [round(one, _DIGITS) for one in text.log_probs])
            for text in self.texts
        ]
        rounded = msgspec.structs.replace(self, texts=texts)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(rounded), indent=2) + b"\n")


def read_record(folder: Path) -> Record | None:
    """The record beside a model's weights. Raises VerificationError for one that is damaged."""
    path = folder / RECORD_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as exc:
        raise VerificationError(f"{path} cannot be read ({exc}): delete it") from exc


def find_record(home: Path, artefact: Artefact) -> Record | None:
    """What a model is held to: its own record, else that of an unquantized variant of it."""
    own = read_record(artefact.path)
    return own if own is not None else next(_records_of_others(home, artefact), None)


def _records_of_others(home: Path, artefact: Artefact) -> Iterator[Record]:
    manifest = artefact.manifest
    for other in list_artefacts(home):
        found = other.manifest
        if (
            found.name == manifest.name
            and found.variant != manifest.variant
            and found.quantization in UNQUANTIZED
            and found.limits.vocab_size == manifest.limits.vocab_size
            and (record := read_record(other.path)) is not None
            and (record.texts or record.embedding)
        ):
            yield msgspec.structs.replace(record, tolerance=None)
