"""Verifies a model in a real Triton before it is published, and again whenever it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO, TypeVar

from build_engines.artefacts.artefact import Artefact
from build_engines.errors import VerificationError
from build_engines.spec import EmbeddingVerification, Verification
from build_engines.verify import embedding, generator
from build_engines.verify.oracle import Oracle
from build_engines.verify.record import Record, find_record
from build_engines.verify.report import Outcome, Report
from build_engines.verify.scratch import Ask, ScratchTriton, check_backend, scratch_triton
from build_engines.verify.texts import tokenize, tokenize_rows
from build_engines.verify.thresholds import SAME_WEIGHTS_TOLERANCE, tolerance_of
from build_engines.verify.verified import Verified
from frontend.errors import ServingError
from frontend.settings import SettingsError, load_settings

T = TypeVar("T")


def require_triton(home: Path, kind: str) -> None:
    """Raises VerificationError where no Triton can load a model of this kind."""
    check_backend(load_settings({"home": home}), kind)


def verify(
    artefact: Artefact,
    *,
    home: Path,
    log: TextIO,
    golden: Verification | EmbeddingVerification | None = None,
    oracle: Oracle | None = None,
    tolerance: float | None = None,
    record_to: Path | None = None,
) -> Verified:
    """Loads a model in a Triton of its own, asks it, and returns how it did.

    Args:
        artefact: staged or published; its files lie in `artefact.path`, and of its manifest (which
            need not be on the disk) `files`, `size_bytes` and `verification` are not read.
        home: whose settings hold, and whose other variants may have recorded a reference.
        log: hears the whole report, and Triton's own log.
        golden: the spec's `verify`; None: what is recorded beside the weights, if anything is.
        oracle: the unquantized model. None: what is recorded beside the weights, or by an
            unquantized variant of the model.
        tolerance: the spec's, of this variant; None: what is recorded beside the weights, else the
            quantization's.
        record_to: file for what a later `verify` needs; it holds nothing that changes from run to
            run.

    Raises:
        VerificationError: the model must not be published; one line says why.
    """
    report = Report(log)
    try:
        outcome, memory_bytes = _Job(artefact, home, report, golden, oracle, tolerance).run()
    except SettingsError as exc:
        raise VerificationError(str(exc)) from exc
    except ServingError as exc:
        report.write("refused", str(exc))
        reason = str(exc).splitlines()[0].rstrip(" :,")
        raise VerificationError(f"the model does not work in Triton: {reason}") from exc
    except VerificationError as exc:
        report.write("refused", str(exc))
        raise
    report.write("verified", asdict(outcome.result))
    if record_to is not None:
        outcome.record.write(record_to)
    return Verified(result=outcome.result, memory_bytes=memory_bytes)


@dataclass(frozen=True, slots=True)
class _Job:
    """One verification."""

    artefact: Artefact
    home: Path
    report: Report
    golden: Verification | EmbeddingVerification | None
    oracle: Oracle | None
    tolerance: float | None

    def run(self) -> tuple[Outcome, int | None]:
        record = None if self.oracle is not None else find_record(self.home, self.artefact)
        if self.artefact.manifest.embedding_size is None:
            return self._generator(record)
        return self._embedding(record)

    def _generator(self, record: Record | None) -> tuple[Outcome, int | None]:
        golden = self.golden if isinstance(self.golden, Verification) else None
        folder, limits = self.artefact.path / "tokenizer", self.artefact.manifest.limits
        with ExitStack() as stack:
            # It loads while Triton starts.
            oracle = None if self.oracle is None else stack.enter_context(self.oracle.start())
            texts, scratch = self._with_scratch(stack, lambda: tokenize(folder, limits, golden))
            check = generator.Check(
                texts=texts,
                oracle=oracle,
                record=record,
                tolerance=self._tolerance(record),
                own_name=f"{self.artefact.manifest.name}/{self.artefact.manifest.variant}",
                report=self.report,
            )
            return _ask(scratch, self.artefact, check.ask)

    def _embedding(self, record: Record | None) -> tuple[Outcome, int | None]:
        golden = self.golden if isinstance(self.golden, EmbeddingVerification) else None
        golden = golden or (None if record is None else record.embedding)
        texts = embedding.TEXTS if golden is None else golden.texts
        folder = self.artefact.path / "tokenizer"
        with ExitStack() as stack:
            rows, scratch = self._with_scratch(stack, lambda: tokenize_rows(folder, texts))
            check = embedding.Check(
                rows=rows, golden=golden, texts=texts, tolerance=self._tolerance(record),
                report=self.report,
            )  # fmt: skip
            return _ask(scratch, self.artefact, check.ask)

    def _with_scratch(self, stack: ExitStack, read: Callable[[], T]) -> tuple[T, ScratchTriton]:
        """Start Triton, and meanwhile read what needs a large library."""
        pool = stack.enter_context(ThreadPoolExecutor(1))
        reading = pool.submit(read)
        settings = load_settings({"home": self.home})
        scratch = stack.enter_context(scratch_triton(settings, self.artefact, self.report.log))
        return reading.result(), scratch

    def _tolerance(self, record: Record | None) -> float:
        if self.tolerance is not None:
            return self.tolerance
        if record is not None and record.tolerance is not None:
            return record.tolerance
        if self.oracle is not None and self.oracle.has_same_weights:
            return SAME_WEIGHTS_TOLERANCE
        manifest = self.artefact.manifest
        is_embedding = manifest.embedding_size is not None
        return tolerance_of(manifest.quantization, is_embedding=is_embedding)


def _ask(
    scratch: ScratchTriton, artefact: Artefact, ask: Ask[Outcome]
) -> tuple[Outcome, int | None]:
    return asyncio.run(scratch.ask(artefact, ask))
