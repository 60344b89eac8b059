"""Embeds the spec's texts with a built model, and measures its memory, in another process.

That runs `python -m build_engines.verify_embedding DIRECTORY`, as `build_engines.verify` does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import numpy as np

from build_engines.errors import VerificationError
from build_engines.openvino_ir import MODEL_XML
from build_engines.spec import EmbeddingVerification
from build_engines.verify import run_apart

DEFAULT_TOLERANCE = 0.001


class Texts(msgspec.Struct, frozen=True):
    """The texts' token ids."""

    token_ids: list[list[int]]


class Embeddings(msgspec.Struct, frozen=True):
    """A vector for each text."""

    vectors: list[list[float]]
    memory_bytes: int  # resident memory that loading and one pass took


def tokenize(tokenizer_dir: Path, texts: list[str]) -> Texts:
    """The texts as the model takes them, special tokens included."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    return Texts([tokenizer.encode(text).ids for text in texts])


def ask(directory: Path, texts: Texts) -> Embeddings:
    """Runs the model in `directory`. Raises VerificationError, with its last words, if it fails."""
    answer = run_apart("build_engines.verify_embedding", directory, texts)
    return msgspec.json.decode(answer, type=Embeddings)


def judge(answer: Embeddings, verification: EmbeddingVerification, tolerance: float | None) -> None:
    """Raises VerificationError unless values and cosines are the expected ones."""
    tolerance = DEFAULT_TOLERANCE if tolerance is None else tolerance
    vectors = np.array(answer.vectors)
    for name, found, expected in (
        ("values", vectors[0][: len(verification.values)], verification.values),
        ("cosines", vectors @ vectors[0], verification.cosines),
    ):
        difference = float(np.abs(found - np.array(expected)).max())
        if not difference <= tolerance:
            raise VerificationError(
                f"the {name} of the built model and its source differ by {difference:.5f}, "
                f"{tolerance} is allowed"
            )


def _embed(directory: Path, texts: Texts) -> Embeddings:
    import openvino
    import psutil

    process = psutil.Process()
    before = process.memory_info().rss
    compiled = openvino.Core().compile_model(
        directory / MODEL_XML, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    request = compiled.create_infer_request()
    longest = max(map(len, texts.token_ids))
    token_ids = np.zeros((len(texts.token_ids), longest), np.int64)
    mask = np.zeros_like(token_ids)
    for row, ids in enumerate(texts.token_ids):
        token_ids[row, : len(ids)] = ids
        mask[row, : len(ids)] = 1
    vectors = request.infer({"input_ids": token_ids, "attention_mask": mask})["embeddings"]
    memory_bytes = process.memory_info().rss - before
    return Embeddings(vectors=vectors.tolist(), memory_bytes=memory_bytes)


if __name__ == "__main__":
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=Texts)
    sys.stdout.buffer.write(msgspec.json.encode(_embed(Path(sys.argv[1]), asked)))
