"""Verifies a model that makes embeddings: rows alone and together, and their cosines."""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from build_engines.artefacts.artefact import VerificationResult
from build_engines.errors import VerificationError
from build_engines.spec import EmbeddingVerification
from build_engines.verify import rules
from build_engines.verify.record import Record
from build_engines.verify.report import FIRST_RECORD, Outcome, Report
from build_engines.verify.texts import BEGINNINGS
from frontend.triton.client import TritonClient
from frontend.types import LoadedModel

TEXTS = list(BEGINNINGS)
_NUM_VALUES = 8  # of the first vector that are recorded
_LENGTH_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """`rows` are the token ids of `texts`, which are the golden ones where there are some."""

    rows: list[list[int]]
    texts: list[str]
    golden: EmbeddingVerification | None
    tolerance: float
    report: Report

    async def ask(self, client: TritonClient, model: LoadedModel) -> Outcome:
        """Raises VerificationError, ServingError."""
        (alone,) = await client.embed(model.name, self.rows[:1])
        started_s = time.monotonic()
        vectors = await client.embed(model.name, self.rows)
        rate = sum(map(len, self.rows)) / (time.monotonic() - started_s)
        self.report.write("vectors", [list(vector[:_NUM_VALUES]) for vector in vectors])
        for vector in vectors:
            length = math.sqrt(sum(value * value for value in vector))
            if not abs(length - 1) < _LENGTH_TOLERANCE:  # nor a NaN
                raise VerificationError(f"the length of a vector is {length:g}, not 1")
        if max(abs(a - b) for a, b in zip(alone, vectors[0], strict=True)) > self.tolerance:
            raise VerificationError("its vector of a text changes beside other texts")
        golden, reference, difference = self.golden, "the spec's vectors", None
        if golden is None:
            golden, reference = _golden(self.texts, vectors), FIRST_RECORD
        else:
            difference = rules.check_embeddings(vectors, golden, self.tolerance)
        result = VerificationResult(
            reference=reference,
            difference=difference,
            tolerance=self.tolerance,
            tokens_per_s={"1": round(rate, 1)},
        )
        return Outcome(
            result=result, record=Record(reference, tolerance=self.tolerance, embedding=golden)
        )


def _golden(texts: list[str], vectors: Sequence[array[float]]) -> EmbeddingVerification:
    """What these vectors would have to be again."""
    return EmbeddingVerification(
        texts=texts,
        values=list(vectors[0][:_NUM_VALUES]),
        cosines=rules.cosines(vectors),
    )
