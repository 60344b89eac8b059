"""What a verified model must not do. Pure: it hears the answers, and raises VerificationError."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from build_engines.errors import VerificationError
from build_engines.spec import EmbeddingVerification
from build_engines.verify.texts import Question

# Two choices that are so close are a tie: which of them wins may depend on the batch around a
# request (GPU kernels differ by batch size; so does llama.cpp's arithmetic).
TIE_NATS = 0.1
# What a place counts where the model would choose another token than the reference has there, and
# its engine tells the log-probs of chosen tokens only.
OTHER_CHOICE_NATS = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model generated greedily, with the log-prob of each token."""

    token_ids: list[int]
    log_probs: list[float]


class ScoredText(msgspec.Struct, frozen=True):
    """A text, and the log-probs of its last `len(log_probs)` tokens, each given all before it."""

    token_ids: list[int]
    log_probs: list[float]


def scored(prompt: list[int], answer: Answer) -> ScoredText:
    """A prompt with its answer, of which the answer is scored."""
    return ScoredText(prompt + answer.token_ids, answer.log_probs)


def check_finite(answers: Sequence[Answer]) -> None:
    for answer in answers:
        for token_id, log_prob in zip(answer.token_ids, answer.log_probs, strict=True):
            if not math.isfinite(log_prob):
                raise VerificationError(
                    f"the log-prob of a generated token ({token_id}) is {log_prob}"
                )


def check_same(one: Answer, other: Answer, when: str) -> None:
    """Both are the same, or part at a tie."""
    pairs = zip(one.token_ids, other.token_ids, strict=True)
    for place, (token_id, other_id) in enumerate(pairs):
        if token_id == other_id:
            continue
        difference = abs(one.log_probs[place] - other.log_probs[place])
        if difference < TIE_NATS:
            return
        raise VerificationError(
            f"its greedy answer changes {when}: token {place + 1} is {token_id}, then {other_id}"
        )


def check_varied(answers: Sequence[Answer]) -> None:
    """Not every answer is one token again and again."""
    if all(len(answer.token_ids) > 1 and len(set(answer.token_ids)) == 1 for answer in answers):
        token_id = answers[0].token_ids[0]
        raise VerificationError(f"it repeats one token for ever, whatever it is asked ({token_id})")


def check_question(question: Question, answer: Answer, tolerance: float | None) -> None:
    """The answer is the spec's, and about as likely (None: the engine does not tell)."""
    if answer.token_ids != question.answer_token_ids:
        raise VerificationError(
            f"it does not answer {question.answer!r}: its greedy tokens are {answer.token_ids}, "
            f"expected {question.answer_token_ids}"
        )
    if question.log_probs and tolerance is not None:
        expected = ScoredText(answer.token_ids, question.log_probs)
        difference = mean_difference([expected], [answer.log_probs])
        check_difference(difference, tolerance, "what the spec expects of its answer")


def mean_difference(
    reference: Sequence[ScoredText], found: Sequence[Sequence[float | None]]
) -> float:
    """The mean absolute difference over all places; None stands for another choice."""
    differences = [
        OTHER_CHOICE_NATS if log_prob is None else abs(log_prob - expected)
        for text, log_probs in zip(reference, found, strict=True)
        for expected, log_prob in zip(text.log_probs, log_probs, strict=True)
    ]
    return sum(differences) / len(differences)


def check_difference(difference: float, tolerance: float, reference: str) -> None:
    if not difference <= tolerance:  # nor a NaN
        raise VerificationError(
            f"its log-probs differ from {reference} by {difference:.3f} nats on average, "
            f"{tolerance:g} is allowed"
        )


def check_embeddings(
    vectors: Sequence[Sequence[float]], golden: EmbeddingVerification, tolerance: float
) -> float:
    """The greatest difference of the first vector's values and of the cosines with it."""
    worst = 0.0
    for name, found, expected in (
        ("values", vectors[0][: len(golden.values)], golden.values),
        ("cosines", cosines(vectors), golden.cosines),
    ):
        for value, wanted in zip(found, expected, strict=True):
            difference = abs(value - wanted)
            if not difference <= tolerance:
                raise VerificationError(
                    f"the {name} of its vectors differ from what the spec expects by "
                    f"{difference:.5f}, {tolerance:g} is allowed"
                )
            worst = max(worst, difference)
    return worst


def cosines(vectors: Sequence[Sequence[float]]) -> list[float]:
    """Of the first vector with each; their lengths are 1."""
    return [sum(a * b for a, b in zip(vectors[0], one, strict=True)) for one in vectors]
