"""What is asked of a model before it is published, and what it is refused for."""

from __future__ import annotations

import io
import math
from array import array
from collections.abc import Sequence

import pytest

from build_engines.errors import VerificationError
from build_engines.spec import EmbeddingVerification
from build_engines.verify import embedding, generator
from build_engines.verify.oracle import OracleProcess, OracleQuestion
from build_engines.verify.record import Record
from build_engines.verify.report import FIRST_RECORD, Outcome, Report
from build_engines.verify.rules import ScoredText
from build_engines.verify.texts import Question, Texts
from tests.unit.build_engines.verify_fakes import (
    VOCAB_SIZE,
    FakeModel,
    exact_row,
    log_probs_of,
    never,
    noisy,
    one_token_row,
)

BEGINNINGS = [[1, 2, 3], [4, 5], [6, 7, 8], [9], [10, 11], [12, 13], [14], [15, 16, 17]]
FIXED = [3, 9, 4, 1, 22, 7, 30, 2, 5, 6, 19, 8]
PROMPT = [5, 6]
ANSWER = [exact_row([5, 6]).index(max(exact_row([5, 6])))]
QUESTION = Question(
    prompt_token_ids=PROMPT,
    answer="yes",
    answer_token_ids=ANSWER,
    log_probs=log_probs_of(PROMPT + ANSWER, 1),
)


class FakeOracle(OracleProcess):
    """The exact model, or a noisy one, in this process."""

    def __init__(self, noise: float = 0.0) -> None:
        self.description, self.noise, self.error = "the exact model", 0.01, noise
        self.asked: list[OracleQuestion] = []

    def score(self, questions: Sequence[OracleQuestion]) -> list[ScoredText]:
        self.asked = list(questions)
        return [
            ScoredText(one.token_ids, log_probs_of(one.token_ids, one.num_scored, self.error))
            for one in questions
        ]


def texts(question: Question | None = QUESTION) -> Texts:
    return Texts(fixed=FIXED, beginnings=BEGINNINGS, num_new_tokens=6, question=question)


async def ask(
    model: FakeModel,
    *,
    oracle: OracleProcess | None = None,
    record: Record | None = None,
    question: Question | None = QUESTION,
    tolerance: float = 0.1,
) -> Outcome:
    check = generator.Check(
        texts=texts(question),
        oracle=oracle,
        record=record,
        tolerance=tolerance,
        own_name="tiny/q8_0",
        report=Report(io.StringIO()),
    )
    return await check.ask(model.client(), model.loaded())


async def test_a_model_like_its_oracle_passes_and_the_reference_is_recorded() -> None:
    outcome = await ask(FakeModel(), oracle=FakeOracle())
    assert outcome.result.difference == pytest.approx(0, abs=1e-9)
    assert outcome.result.tolerance == pytest.approx(0.11)  # the oracle's own noise is added
    assert outcome.result.reference == "the exact model"
    assert outcome.result.tokens_per_s.keys() == {"1", "8"}
    assert min(outcome.result.tokens_per_s.values()) > 0
    fixed = outcome.record.texts[0]
    assert fixed == ScoredText(FIXED, log_probs_of(FIXED, len(FIXED) - 1))
    assert outcome.record.question == QUESTION


@pytest.mark.parametrize(("noise", "is_refused"), [(0.02, False), (1.5, True)])
async def test_a_disturbed_model_is_refused_where_it_differs_too_much(
    noise: float, is_refused: bool
) -> None:
    model = FakeModel(row=noisy(noise))
    if not is_refused:
        outcome = await ask(model, oracle=FakeOracle(), question=None)
        assert 0 < (outcome.result.difference or 0) < 0.11
        return
    with pytest.raises(VerificationError, match=r"differ from the exact model by \d\.\d+ nats"):
        await ask(model, oracle=FakeOracle(), question=None)


async def test_a_model_that_says_something_else_than_the_spec_is_refused() -> None:
    other = Question(
        prompt_token_ids=PROMPT, answer="no", answer_token_ids=[ANSWER[0] ^ 1], log_probs=[-1.0]
    )
    with pytest.raises(VerificationError, match="it does not answer 'no': its greedy tokens are"):
        await ask(FakeModel(), oracle=FakeOracle(), question=other)


async def test_an_answer_of_another_likelihood_than_the_spec_says_is_refused() -> None:
    unlikely = Question(
        prompt_token_ids=PROMPT, answer="yes", answer_token_ids=ANSWER, log_probs=[-7.0]
    )
    with pytest.raises(VerificationError, match="differ from what the spec expects of its answer"):
        await ask(FakeModel(), oracle=FakeOracle(), question=unlikely)


async def test_log_probs_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(VerificationError, match=r"log-prob of a generated token .* is nan"):
        await ask(FakeModel(row=never), oracle=FakeOracle())


async def test_an_answer_that_changes_in_a_batch_is_refused() -> None:
    model = FakeModel(batch_row=noisy(9.0))
    with pytest.raises(VerificationError, match="changes in a batch of 8 requests: token"):
        await ask(model, oracle=FakeOracle())


async def test_an_answer_that_changes_from_time_to_time_is_refused() -> None:
    model = FakeModel()
    model.row = lambda token_ids: exact_row(token_ids, 9.0 if model.num_requests > 1 else 0.0)
    with pytest.raises(VerificationError, match="changes when it is asked twice"):
        await ask(model, oracle=FakeOracle())


async def test_an_answer_that_ends_too_early_is_refused() -> None:
    with pytest.raises(VerificationError, match="asked for 6 tokens it gave 5, with 5 log-probs"):
        await ask(FakeModel(short_by=1), oracle=FakeOracle())


async def test_one_token_for_ever_is_refused_unless_the_reference_says_so_too() -> None:
    model = FakeModel(row=one_token_row(7))
    with pytest.raises(VerificationError, match=r"repeats one token for ever, .* \(7\)"):
        await ask(model, question=None)
    repeated = [ScoredText([1, 7, 7], [-0.1, -0.1])]
    record = Record("an unquantized model that does so", texts=repeated)
    outcome = await ask(model, record=record, question=None)
    assert outcome.result.difference == pytest.approx(0)


@pytest.mark.parametrize("scores_prompts", [True, False])
async def test_the_first_of_its_model_is_what_the_next_ones_are_held_to(
    scores_prompts: bool,
) -> None:
    first = await ask(FakeModel(scores_prompts=scores_prompts))
    assert (first.result.reference, first.result.difference) == (FIRST_RECORD, None)
    assert first.record.reference == "tiny/q8_0"
    again = await ask(FakeModel(scores_prompts=scores_prompts), record=first.record, question=None)
    assert again.result.difference == pytest.approx(0, abs=1e-9)
    assert again.result.reference == "tiny/q8_0"
    assert again.record == first.record  # the question of the first included
    other = FakeModel(row=noisy(1.5), scores_prompts=scores_prompts)
    texts_alone = Record("tiny/q8_0", texts=first.record.texts)
    with pytest.raises(VerificationError, match="differ from tiny/q8_0"):
        await ask(other, record=texts_alone, question=None)


async def test_an_engine_that_tells_nothing_of_prompts_is_asked_token_by_token() -> None:
    """The C++ engine of TensorRT-LLM: another choice than the reference's counts a nat."""
    first = await ask(FakeModel(scores_prompts=False))
    assert len(first.record.texts) == len(BEGINNINGS)
    answer = first.record.texts[0]
    wrong = [*answer.token_ids[:-1], (answer.token_ids[-1] + 1) % VOCAB_SIZE]
    record = Record("other", texts=[ScoredText(wrong, answer.log_probs)])
    outcome = await ask(
        FakeModel(scores_prompts=False), record=record, question=None, tolerance=0.5
    )
    assert outcome.result.difference == pytest.approx(1 / 6)  # one place of six


async def test_an_engine_that_tells_no_log_probs_is_held_to_the_tokens_of_its_reference() -> None:
    """A TensorRT engine that takes a draft model's guesses: nobody is held to it in turn."""
    silent = FakeModel(scores_prompts=False, tells_log_probs=False)
    assert (await ask(silent)).record.texts == []
    plain = (await ask(FakeModel(scores_prompts=False))).record
    assert (await ask(silent, record=plain)).result.difference == 0
    silent.row = one_token_row(3)
    with pytest.raises(VerificationError, match="differ from tiny/q8_0"):
        await ask(silent, record=Record("tiny/q8_0", texts=plain.texts), question=None)


@pytest.mark.parametrize("scores_prompts", [True, False])
async def test_what_it_costs_is_bounded(scores_prompts: bool) -> None:
    """Counted, so that no machine's speed matters: the default model is built on laptops."""
    model = FakeModel(scores_prompts=scores_prompts)
    await ask(model, oracle=FakeOracle() if scores_prompts else None)
    num_answers = 2 + 8 + (0 if scores_prompts else 8)
    assert model.num_requests == num_answers + 1 + int(scores_prompts)
    assert model.num_generated == 6 * num_answers + len(ANSWER)
    assert model.most_running == 8


def vectors(*rows: tuple[float, float]) -> list[array[float]]:
    return [array("f", row) for row in rows]


async def embed(
    model: FakeModel, golden: EmbeddingVerification | None, tolerance: float = 0.01
) -> Outcome:
    check = embedding.Check(
        rows=[[1, 2], [3]], texts=["a", "b"], golden=golden, tolerance=tolerance,
        report=Report(io.StringIO()),
    )  # fmt: skip
    return await check.ask(model.client(), model.loaded())


RIGHT = vectors((0.6, 0.8), (-0.8, 0.6))


@pytest.mark.parametrize(
    ("values", "cosines", "message"),
    [
        ([0.6, 0.7], [1.0, 0.0], "the values of its vectors differ .* by 0.10000"),
        ([0.6, 0.8], [1.0, 0.2], "the cosines .* by 0.20000, 0.01 is allowed"),
        ([math.nan, 0.8], [1.0, 0.0], "the values"),
    ],
)
async def test_vectors_that_differ_are_refused(
    values: list[float], cosines: list[float], message: str
) -> None:
    golden = EmbeddingVerification(texts=["a", "b"], values=values, cosines=cosines)
    with pytest.raises(VerificationError, match=message):
        await embed(FakeModel(vectors=RIGHT), golden)


async def test_vectors_as_expected_pass_and_are_recorded() -> None:
    golden = EmbeddingVerification(texts=["a", "b"], values=[0.6, 0.8], cosines=[1.0, 0.0])
    outcome = await embed(FakeModel(vectors=RIGHT), golden)
    assert outcome.result.difference == pytest.approx(0, abs=1e-6)
    assert outcome.record.embedding == golden


async def test_without_expectations_the_vectors_are_what_the_next_time_expects() -> None:
    outcome = await embed(FakeModel(vectors=RIGHT), None)
    assert outcome.result.reference == FIRST_RECORD
    again = await embed(FakeModel(vectors=RIGHT), outcome.record.embedding)
    assert again.result.difference == pytest.approx(0, abs=1e-6)
    with pytest.raises(VerificationError, match="the values"):
        await embed(FakeModel(vectors=vectors((0.8, 0.6), (-0.8, 0.6))), outcome.record.embedding)


async def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(VerificationError, match="the length of a vector is 2, not 1"):
        await embed(FakeModel(vectors=vectors((2.0, 0.0), (0.0, 1.0))), None)
