"""Verifies a model that generates tokens: what it is asked, in which order, and what must hold."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from build_engines.artefacts.artefact import VerificationResult
from build_engines.verify import rules
from build_engines.verify.asking import Asker, Probe
from build_engines.verify.oracle import OracleProcess, OracleQuestion
from build_engines.verify.record import Record
from build_engines.verify.report import FIRST_RECORD, Outcome, Report
from build_engines.verify.rules import Answer, ScoredText
from build_engines.verify.texts import Question, Texts
from frontend.triton.client import TritonClient
from frontend.types import LoadedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """At most one of `oracle` and `record` is there."""

    texts: Texts
    oracle: OracleProcess | None
    record: Record | None
    tolerance: float
    own_name: str  # of the model, for those that will be held to it
    report: Report

    async def ask(self, client: TritonClient, model: LoadedModel) -> Outcome:
        """Raises VerificationError, ServingError."""
        asker = Asker(client, model)
        probe = await asker.probe(self.texts.beginnings, self.texts.num_new_tokens)
        self.report.write("answers", [asdict(answer) for answer in probe.together])
        rules.check_finite([probe.alone, probe.again, *probe.together])
        rules.check_same(probe.alone, probe.again, "when it is asked twice")
        together = f"in a batch of {len(probe.together)} requests"
        rules.check_same(probe.alone, probe.together[0], together)
        question = self._question()
        if question is not None:
            answer = await asker.generate(question.prompt_token_ids, len(question.answer_token_ids))
            self.report.write("golden answer", asdict(answer))
            rules.check_question(
                question, answer, self.tolerance if asker.tells_log_probs else None
            )
        return await self._compare(asker, probe, question)

    def _question(self) -> Question | None:
        if self.texts.question is not None or self.record is None:
            return self.texts.question
        return self.record.question

    async def _compare(self, asker: Asker, probe: Probe, question: Question | None) -> Outcome:
        """Hold the model's log-probs to the reference's."""
        if self.record is not None and self.record.texts:
            reference, noise = self.record.reference, self.record.noise
            expected = recorded = self.record.texts
            found = await asker.score(expected)
        elif self.oracle is not None:
            own = await self._own_texts(asker, probe)
            texts = own + _answers(self.texts.beginnings, probe.together)
            questions = [OracleQuestion(text.token_ids, len(text.log_probs)) for text in texts]
            reference, noise = self.oracle.description, self.oracle.noise
            expected = await asyncio.to_thread(self.oracle.score, questions)
            found = [list(text.log_probs) for text in texts]
            recorded = expected[: len(own)]
        else:
            rules.check_varied(probe.together)
            texts = await self._own_texts(asker, probe) if asker.tells_log_probs else []
            record = Record(self.own_name, tolerance=self.tolerance, texts=texts, question=question)
            return self._outcome(probe, record, FIRST_RECORD, None)
        difference = rules.mean_difference(expected, found)
        self.report.write("log-probs", {"reference": reference, "of": expected, "found": found})
        rules.check_difference(difference, self.tolerance + noise, reference)
        record = Record(reference, noise, self.tolerance, recorded, question)
        return self._outcome(probe, record, reference, difference)

    async def _own_texts(self, asker: Asker, probe: Probe) -> list[ScoredText]:
        """The fixed text, or answers where the engine tells nothing of prompts.

        Each is asked for alone: what is recorded must not depend on the batch around it.
        """
        beginnings, num_tokens = self.texts.beginnings, self.texts.num_new_tokens
        if not asker.scores_prompts or len(self.texts.fixed) < 2:
            answers = [await asker.generate(one, num_tokens) for one in beginnings]
            return _answers(beginnings, answers)
        fixed = ScoredText(self.texts.fixed, [0.0] * (len(self.texts.fixed) - 1))
        (log_probs,) = await asker.score([fixed])
        scored = [one for one in log_probs if one is not None]  # all, of such an engine
        return [ScoredText(fixed.token_ids, scored), *_answers(beginnings[:1], [probe.again])]

    def _outcome(
        self, probe: Probe, record: Record, reference: str, difference: float | None
    ) -> Outcome:
        result = VerificationResult(
            reference=reference,
            difference=difference,
            tolerance=self.tolerance + record.noise,
            tokens_per_s=probe.tokens_per_s,
        )
        return Outcome(result=result, record=record)


def _answers(prompts: Sequence[list[int]], answers: Sequence[Answer]) -> list[ScoredText]:
    return [rules.scored(prompt, one) for prompt, one in zip(prompts, answers, strict=True)]
