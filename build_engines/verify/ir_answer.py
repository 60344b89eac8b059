"""Asks a built OpenVINO model the spec's question, and measures its memory, in another process.

That runs `python -m build_engines.verify.ir_answer DIRECTORY`: Question on stdin, Answer on stdout.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from build_engines.errors import VerificationError
from build_engines.openvino_ir import MODEL_XML
from build_engines.spec import Verification

LogProbs = npt.NDArray[np.float64]


class Question(msgspec.Struct, frozen=True):
    """The prompt's and the expected answer's token ids."""

    prompt_token_ids: list[int]
    answer_token_ids: list[int]


class Answer(msgspec.Struct, frozen=True):
    """The greedy choice and the expected token's log-prob at every place of the answer."""

    greedy_token_ids: list[int]
    log_probs: list[float]
    memory_bytes: int  # resident memory that loading and one pass took


def render_question(tokenizer_dir: Path, verification: Verification) -> Question:
    """Tokens of the conversation in the model's own chat template, and of the answer."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from tokenizers import Tokenizer

    source = (tokenizer_dir / "chat_template.jinja").read_text(encoding="utf-8")
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    prompt = environment.from_string(source).render(
        messages=verification.messages, add_generation_prompt=True
    )
    tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    prompt_ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    answer_ids = tokenizer.encode(verification.answer, add_special_tokens=False).ids
    return Question(prompt_ids, answer_ids)


def ask(directory: Path, question: Question) -> Answer:
    """Runs the model in `directory`. Raises VerificationError, with its last words, if it fails."""
    return msgspec.json.decode(
        run_apart("build_engines.verify.ir_answer", directory, question), type=Answer
    )


def run_apart(module: str, directory: Path, question: msgspec.Struct) -> bytes:
    """What `python -m MODULE DIRECTORY` answers to a question as JSON; see `ask`."""
    command = [sys.executable, "-m", module, str(directory.resolve())]
    finished = subprocess.run(
        command,
        input=msgspec.json.encode(question),
        capture_output=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    if finished.returncode != 0:
        lines = finished.stderr.decode(errors="replace").strip().splitlines()
        raise VerificationError(
            f"running the built model failed (exit {finished.returncode}): "
            f"{lines[-1] if lines else ''}"
        )
    return finished.stdout


def judge(
    answer: Answer, question: Question, verification: Verification, tolerance: float | None
) -> None:
    """Raises VerificationError unless the answer is as expected and about as likely."""
    if answer.greedy_token_ids != question.answer_token_ids:
        raise VerificationError(
            f"the built model does not answer {verification.answer!r}: its greedy tokens are "
            f"{answer.greedy_token_ids}, expected {question.answer_token_ids}"
        )
    pairs = zip(answer.log_probs, verification.log_probs, strict=True)
    difference = sum(abs(found - expected) for found, expected in pairs) / len(answer.log_probs)
    if tolerance is not None and not difference <= tolerance:
        raise VerificationError(
            f"the log-probs of the built model and its source differ by {difference:.3f}, "
            f"{tolerance} is allowed"
        )


def _answer(directory: Path, question: Question) -> Answer:
    import openvino
    import psutil

    process = psutil.Process()
    before = process.memory_info().rss
    compiled = openvino.Core().compile_model(
        directory / MODEL_XML, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    log_probs = _log_probs(compiled, question)
    memory_bytes = process.memory_info().rss - before
    expected = log_probs[np.arange(len(question.answer_token_ids)), question.answer_token_ids]
    return Answer(
        greedy_token_ids=log_probs.argmax(axis=1).tolist(),
        log_probs=expected.tolist(),
        memory_bytes=memory_bytes,
    )


def _log_probs(compiled: Any, question: Question) -> LogProbs:
    """Log-probs at every place of the answer, [answer tokens, vocabulary], from one pass."""
    token_ids = question.prompt_token_ids + question.answer_token_ids
    request = compiled.create_infer_request()
    request.infer(
        {
            "input_ids": np.array([token_ids], dtype=np.int64),
            "attention_mask": np.ones((1, len(token_ids)), dtype=np.int64),
            "position_ids": np.arange(len(token_ids), dtype=np.int64)[None],
            "beam_idx": np.zeros(1, dtype=np.int32),
        }
    )
    first = len(question.prompt_token_ids) - 1
    logits = request.get_tensor("logits").data[0, first:-1].astype(np.float64)
    if not np.isfinite(logits).all():
        raise SystemExit("its logits are not finite numbers")
    logits -= logits.max(axis=1, keepdims=True)
    result: LogProbs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return result


if __name__ == "__main__":
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    sys.stdout.buffer.write(msgspec.json.encode(_answer(Path(sys.argv[1]), asked)))
