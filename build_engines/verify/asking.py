"""Asks a loaded model through the frontend's Triton client; judges nothing."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from build_engines.errors import VerificationError
from build_engines.verify.rules import Answer, ScoredText
from frontend.triton.client import TritonClient
from frontend.triton.tensors import RETURN_LOG_PROBS, RETURN_PROMPT_LOG_PROBS
from frontend.types import GenerationRequest, LoadedModel, SamplingParams

MAX_AT_ONCE = 8
_GREEDY = SamplingParams(temperature=0.0, num_log_probs=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The same beginnings answered alone, alone again, and all at once."""

    alone: Answer  # of the first beginning, like `again`
    again: Answer
    together: list[Answer]
    tokens_per_s: dict[str, float]  # streams -> of all together


class Asker:
    """One model of one Triton."""

    def __init__(self, client: TritonClient, model: LoadedModel) -> None:
        self._client = client
        self._model = model
        self._places = asyncio.Semaphore(MAX_AT_ONCE)
        self._numbers = itertools.count()

    @property
    def scores_prompts(self) -> bool:
        """Whether the engine tells the log-probs of a prompt's own tokens."""
        return RETURN_PROMPT_LOG_PROBS.name in self._model.inputs

    @property
    def tells_log_probs(self) -> bool:
        """Whether the engine tells the log-probs of what it chose; if not, they are taken for 0."""
        return RETURN_LOG_PROBS.name in self._model.inputs

    async def generate(self, prompt: list[int], num_tokens: int) -> Answer:
        """The greedy continuation. Raises ServingError, or VerificationError for a short one."""
        answer = Answer([], [])
        async for chunk in self._client.stream(self._request(prompt, num_tokens)):
            answer.token_ids.extend(chunk.token_ids)
            told = chunk.log_probs if self.tells_log_probs else [0.0] * len(chunk.token_ids)
            answer.log_probs.extend(told or [])
        lengths = (len(answer.token_ids), len(answer.log_probs))
        if lengths != (num_tokens, num_tokens):
            raise VerificationError(
                f"asked for {num_tokens} tokens it gave {lengths[0]}, with {lengths[1]} log-probs"
            )
        return answer

    async def probe(self, beginnings: list[list[int]], num_tokens: int) -> Probe:
        """Generates, and measures how fast. Raises ServingError."""
        alone = await self.generate(beginnings[0], num_tokens)  # warms up, too
        started_s = time.monotonic()
        again = await self.generate(beginnings[0], num_tokens)
        one_s = time.monotonic() - started_s
        started_s = time.monotonic()
        together = await asyncio.gather(*(self.generate(one, num_tokens) for one in beginnings))
        all_s = time.monotonic() - started_s
        rates = {
            "1": round(num_tokens / one_s, 1),
            str(len(beginnings)): round(num_tokens * len(beginnings) / all_s, 1),
        }
        return Probe(alone=alone, again=again, together=list(together), tokens_per_s=rates)

    async def score(self, texts: Sequence[ScoredText]) -> list[list[float | None]]:
        """This model's log-probs at the places that the texts score.

        None: the engine tells log-probs of what it chose only, and it would choose another token.
        The text's own, where it chooses the same token and tells none. Raises ServingError.
        """
        one = self._score_prompt if self.scores_prompts else self._score_token_by_token
        return list(await asyncio.gather(*(one(text) for text in texts)))

    async def _score_prompt(self, text: ScoredText) -> list[float | None]:
        request = self._request(text.token_ids, 0, returns_prompt_log_probs=True)
        async with self._places:
            chunks = [chunk async for chunk in self._client.stream(request)]
        log_probs = next(c.prompt_log_probs for c in chunks if c.prompt_log_probs is not None)
        return list(log_probs[len(log_probs) - len(text.log_probs) :])

    async def _score_token_by_token(self, text: ScoredText) -> list[float | None]:
        """TensorRT-LLM's C++ engine takes a text as prompt but tells nothing of it."""
        first = len(text.token_ids) - len(text.log_probs)
        places = range(first, len(text.token_ids))
        return list(await asyncio.gather(*(self._score_place(text, place) for place in places)))

    async def _score_place(self, text: ScoredText, place: int) -> float | None:
        async with self._places:
            answer = await self.generate(text.token_ids[:place], 1)
        is_chosen = answer.token_ids == text.token_ids[place : place + 1]
        if not is_chosen:
            return None
        first = len(text.token_ids) - len(text.log_probs)
        return answer.log_probs[0] if self.tells_log_probs else text.log_probs[place - first]

    def _request(
        self, prompt: list[int], num_tokens: int, *, returns_prompt_log_probs: bool = False
    ) -> GenerationRequest:
        sampling = _GREEDY if self.tells_log_probs else replace(_GREEDY, num_log_probs=None)
        return GenerationRequest(
            request_id=f"verify-{next(self._numbers)}",
            model=self._model.name,
            prompt_token_ids=prompt,
            max_new_tokens=num_tokens,
            sampling=sampling,
            end_id=None,  # every answer has its full length
            returns_prompt_log_probs=returns_prompt_log_probs,
        )
