"""The unquantized model: what a built model's log-probs are held to.

An oracle works in a process of its own (`python -m build_engines.verify.oracle FORMAT PATH`), whose
memory the build gets back: a list of OracleQuestions on stdin, their log-probs on stdout.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from build_engines.errors import VerificationError
from build_engines.verify.rules import ScoredText

Logits = npt.NDArray[np.float64]
# llama.cpp rounds what it multiplies quantized weights with to eight bits. Measured on 135M
# parameters: 0.06 to the same weights in float32.
LLAMA_CPP_NOISE = 0.1
_MAX_TOKENS = 512  # of a text: more than any that is asked
_KV_CACHE_BYTES = 4 << 30  # no more is taken than so many tokens need


class OracleFormat(StrEnum):
    """What reads the reference."""

    GGUF = "gguf"  # llama.cpp, one file
    OPENVINO = "openvino"  # OpenVINO in float32, a folder with openvino_model.xml


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracle:
    """Where the unquantized model lies, until the build is over."""

    format: OracleFormat
    path: Path
    description: str  # for the manifest: "llama.cpp on SmolLM2-135M-Instruct.Q4_1.gguf"
    has_same_weights: bool = False  # as the built model: then its quantization excuses nothing

    @property
    def noise(self) -> float:
        """Nats by which it differs from the exact model itself, on average."""
        is_exact = self.has_same_weights or self.format is OracleFormat.OPENVINO
        return 0.0 if is_exact else LLAMA_CPP_NOISE

    def start(self) -> OracleProcess:
        """Begin to load it, which may take as long as the built model's own loading."""
        return OracleProcess(self)


class OracleQuestion(msgspec.Struct, frozen=True):
    """A text whose last `num_scored` tokens are asked for."""

    token_ids: list[int]
    num_scored: int


class OracleProcess:
    """An oracle at work; `with` ends it."""

    def __init__(self, oracle: Oracle) -> None:
        self.description, self.noise = oracle.description, oracle.noise
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, oracle.format, str(oracle.path.resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            # Threads that wait by spinning would take the processor from Triton.
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
        )

    def __enter__(self) -> OracleProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def score(self, questions: Sequence[OracleQuestion]) -> list[ScoredText]:
        """Its log-probs, for once. Raises VerificationError, with its last words, if it fails."""
        stdout, stderr = self._process.communicate(msgspec.json.encode(questions))
        if self._process.returncode != 0:
            lines = stderr.decode(errors="replace").strip().splitlines()
            raise VerificationError(
                f"running the unquantized model failed (exit {self._process.returncode}): "
                f"{lines[-1] if lines else ''}"
            )
        answers = msgspec.json.decode(stdout, type=list[list[float]])
        return [
            ScoredText(question.token_ids, log_probs)
            for question, log_probs in zip(questions, answers, strict=True)
        ]


class OpenVinoModel:
    """A stateful IR, computed in float32 whatever the processor would rather do."""

    def __init__(self, folder: Path) -> None:
        import openvino

        from build_engines.cpu.openvino_ir import MODEL_XML

        self._compiled: Any = openvino.Core().compile_model(
            folder / MODEL_XML, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        self._inputs = {tensor.any_name for tensor in self._compiled.inputs}

    def logits(self, token_ids: list[int], num_last: int) -> Logits:
        """Behind each of the last tokens, [num_last, vocabulary]."""
        request = self._compiled.create_infer_request()
        tensors = {
            "input_ids": np.array([token_ids], dtype=np.int64),
            "attention_mask": np.ones((1, len(token_ids)), dtype=np.int64),
            "position_ids": np.arange(len(token_ids), dtype=np.int64)[None],
            "beam_idx": np.zeros(1, dtype=np.int32),
        }
        request.infer({name: tensors[name] for name in self._inputs})
        found: Logits = request.get_tensor("logits").data[0, -num_last:].astype(np.float64)
        return found


class LlamaCppModel:
    """A GGUF file, with keys and values as the llama_cpp engine keeps them: what that one says of
    the same file then differs by 1e-6, where the choice of experts follows the last bits, too.
    """

    def __init__(self, path: Path) -> None:
        from triton_models.llama_cpp.model import LlamaModel, Span

        self._span = Span
        self._model = LlamaModel(
            path,
            kv_cache_bytes=_KV_CACHE_BYTES,
            kv_cache_precision="f16",
            max_seq_len=_MAX_TOKENS,
            max_num_sequences=1,
            max_num_tokens=_MAX_TOKENS,
            num_resident=0,
            num_threads=0,
        )

    def logits(self, token_ids: list[int], num_last: int) -> Logits:
        """See OpenVinoModel."""
        found = self._model.forward([self._span(0, token_ids, 0, num_last)]).astype(np.float64)
        self._model.truncate(0, 0)
        return found


def log_probs(logits: Logits, token_ids: list[int]) -> list[float]:
    """Of one token in each row."""
    logits = logits - logits.max(axis=1, keepdims=True)
    totals = np.log(np.exp(logits).sum(axis=1))
    found: list[float] = (logits[np.arange(len(token_ids)), token_ids] - totals).tolist()
    return found


def _main(kind: OracleFormat, path: Path) -> None:
    model = LlamaCppModel(path) if kind is OracleFormat.GGUF else OpenVinoModel(path)
    questions = msgspec.json.decode(sys.stdin.buffer.read(), type=list[OracleQuestion])
    answers = []
    for question in questions:
        logits = model.logits(question.token_ids[:-1], question.num_scored)
        if not np.isfinite(logits).all():
            raise SystemExit("its logits are not finite numbers")
        answers.append(log_probs(logits, question.token_ids[-question.num_scored :]))
    sys.stdout.buffer.write(msgspec.json.encode(answers))


if __name__ == "__main__":
    _main(OracleFormat(sys.argv[1]), Path(sys.argv[2]))
