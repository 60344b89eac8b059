"""Verifies a model in a real Triton before it is published, and again whenever it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from build_engines.artefact import Artefact, VerificationResult
from build_engines.spec import EmbeddingVerification, Verification
from build_engines.verify.oracle import Oracle

RECORD_NAME = "verification.json"  # beside the weights: what the model answered, and the reference


def verify(
    artefact: Artefact,
    *,
    home: Path,
    log: TextIO,
    golden: Verification | EmbeddingVerification | None = None,
    oracle: Oracle | None = None,
    tolerance: float | None = None,
    record_to: Path | None = None,
) -> VerificationResult:
    """Loads a model in a Triton of its own, asks it, and returns how it did.

    Args:
        artefact: staged or published; its files lie in `artefact.path`, and of its manifest (which
            need not be on the disk) `files`, `size_bytes` and `verification` are not read.
        home: whose other variants may have recorded a reference.
        log: hears the whole report, and Triton's own log when it fails.
        golden: the spec's `verify`.
        oracle: the unquantized model. None: what is recorded beside the weights, or by another
            variant of the model at fp16 or bf16.
        tolerance: the spec's, of this variant; None: the quantization's.
        record_to: file for what a later `verify` needs; it holds nothing that changes from run to
            run.

    Raises:
        VerificationError: the model must not be published; one line says why.
    """
    raise NotImplementedError
