"""Speculative decoding with a draft model: a small model guesses, the target accepts or corrects.

A target engine that is given guesses checks them all in one step, ends, and answers with those that
it would have chosen too and one token more (updateRequests of TensorRT-LLM's
trtGptModelInflightBatching.cpp). So an answer is many requests, whose prompts the engine has in its
prefix cache. Upstream's loop is in Python inside Triton, one request at a time (tensorrt_llm_bls);
this one is in the frontend. It knows the Engine protocol, and nothing of tensors.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from array import array
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from frontend.engine import Engine
from frontend.errors import ServerOverloaded, ServingError, Unavailable
from frontend.triton.tensors import is_greedy
from frontend.types import (
    FinishReason,
    GenerationRequest,
    LoadedModel,
    SamplingParams,
    ServedVersion,
    TokenChunk,
)

logger = logging.getLogger(__name__)

# An answer that has begun does not fail because the queue is full when its next part is asked for.
MAX_ATTEMPTS = 100
PAUSE_S = 0.05


class DraftingEngine:
    """Implements `frontend.engine.Engine` around another, for targets that have a draft model.

    Whatever is wrong with the draft model, the target alone answers.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._targets: set[str] = set()  # models that have a draft model
        self._said: dict[str, str] = {}  # by target: what was last logged

    async def loaded_model(self, name: str, *, is_asked_anew: bool = False) -> LoadedModel:
        model = await self._engine.loaded_model(name, is_asked_anew=is_asked_anew)
        if model.drafting is None:
            self._targets.discard(name)
        else:
            self._targets.add(name)
        return model

    async def embed(
        self,
        model: str,
        rows: Sequence[Sequence[int]],
        *,
        prepared_for: ServedVersion | None = None,
    ) -> list[array[float]]:
        return await self._engine.embed(model, rows, prepared_for=prepared_for)

    async def ready(self) -> bool:
        return await self._engine.ready()

    async def close(self) -> None:
        await self._engine.close()

    def stream(self, request: GenerationRequest) -> AsyncGenerator[TokenChunk, None]:
        """The other engine's own stream, unless the request can be answered by guessing."""
        # Requests are prepared for a model that loaded_model has told of.
        if request.model in self._targets and can_be_drafted(request):
            return self._stream(request)
        return self._engine.stream(request)

    async def _stream(self, request: GenerationRequest) -> AsyncGenerator[TokenChunk, None]:
        answer = Answer(request)
        while (guesses := await self._guess(answer)) is not None:
            token_ids = await self._check(answer, guesses)
            if token_ids is None:
                break
            chunk = answer.take(guesses, token_ids)
            yield chunk
            if chunk.finish_reason is not None:
                return
        async with aclosing(self._rest(answer)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _guess(self, answer: Answer) -> list[int] | None:
        """The draft model's next tokens; None: the target goes on alone."""
        request = answer.request
        try:
            target = await self._engine.loaded_model(request.model)
            if target.drafting is None:
                return None
            draft = await self._engine.loaded_model(target.drafting.model)
            if not target.vocabulary or draft.vocabulary != target.vocabulary:
                self._say(request.model, f"{draft.name} has another vocabulary")
                return None
            num_guesses = min(target.drafting.max_tokens, answer.num_left - 1)
            if not answer.has_room(target, draft, num_guesses):
                return None
            guesses = await self._tokens(answer.draft_request(draft.name, num_guesses))
        except ServingError as exc:
            self._say(request.model, str(exc))
            return None
        self._said.pop(request.model, None)
        return answer.usable(guesses[:num_guesses], target.limits.vocab_size)

    async def _check(self, answer: Answer, guesses: list[int]) -> list[int] | None:
        """What the target makes of the guesses; None: it goes on without, or says itself why not.

        It checks them in one step, so there is no chunk of them to be had any earlier.
        """
        try:
            return await self._tokens(answer.target_request(guesses))
        except Unavailable:
            return None
        except ServingError as exc:
            self._say(answer.request.model, str(exc))
            return None

    async def _tokens(self, request: GenerationRequest) -> list[int]:
        """All tokens of a short answer. Leaving early cancels it, whichever model is asked."""
        if request.max_new_tokens < 1:
            return []
        async with aclosing(self._engine.stream(request)) as chunks:
            return [token_id async for chunk in chunks for token_id in chunk.token_ids]

    async def _rest(self, answer: Answer) -> AsyncGenerator[TokenChunk, None]:
        """What is missing of the answer, by the target alone."""
        for number in itertools.count(1):
            has_begun = False
            try:
                async with aclosing(self._engine.stream(answer.rest())) as chunks:
                    async for chunk in chunks:
                        has_begun = True
                        yield chunk
                return
            except ServerOverloaded:
                if has_begun or not answer.token_ids or number == MAX_ATTEMPTS:
                    raise
            await asyncio.sleep(PAUSE_S)

    def _say(self, model: str, reason: str) -> None:
        """Log each trouble once: every request meets it."""
        if self._said.get(model) != reason:
            self._said[model] = reason
            logger.warning("no draft model", extra={"model": model, "reason": reason})


def can_be_drafted(request: GenerationRequest) -> bool:
    """Whether guessing gives the answer that the target alone would give.

    Only greedy answers are the same whatever was guessed. The parts of an answer are requests of
    their own, each with a longer prompt: what counts from the answer's first token (penalties, bad
    words, seeds, guides) would begin anew, and engines that take guesses tell no log-probs of them
    (layers/externalDraftTokensLayer.cpp).
    """
    others = replace(request.sampling, temperature=1, top_p=1, top_k=0, min_p=0, seed=None)
    return (
        is_greedy(request.sampling)
        and others == SamplingParams()
        and request.num_sequences == 1
        and not request.returns_prompt_log_probs
        and request.adapter is None
        and request.max_new_tokens > 1
    )


@dataclass(slots=True)
class Answer:
    """An answer that is made of parts: what has been given out of it, and what to ask for next."""

    request: GenerationRequest
    token_ids: list[int] = field(default_factory=list)
    _num_parts: int = 0

    @property
    def num_left(self) -> int:
        """Tokens that may still come."""
        return self.request.max_new_tokens - len(self.token_ids)

    def has_room(self, target: LoadedModel, draft: LoadedModel, num_guesses: int) -> bool:
        """Whether both models can take the prompt so far, and the target the one after it, too."""
        num_tokens = len(self.request.prompt_token_ids) + len(self.token_ids)
        return (
            num_tokens + num_guesses + 1 <= target.limits.max_input_len
            and num_tokens <= draft.limits.max_input_len
            and num_tokens + num_guesses <= draft.limits.max_seq_len
        )

    def rest(self) -> GenerationRequest:
        """The request for all that is missing; the client's own while that is everything."""
        if not self.token_ids:
            return self.request
        return self.request.continued(self.token_ids, part=self._next_part())

    def draft_request(self, model: str, num_guesses: int) -> GenerationRequest:
        """The guesses go on behind an end of the answer: it is for the target to see one."""
        return GenerationRequest(
            request_id=f"{self.request.request_id}-{self._next_part()}",
            model=model,
            prompt_token_ids=self.request.prompt_token_ids + self.token_ids,
            max_new_tokens=num_guesses,
            sampling=SamplingParams(temperature=0),
        )

    def usable(self, guesses: list[int], vocab_size: int) -> list[int]:
        """The guesses before the first that the target need not be asked about.

        An end_id that were accepted as a guess would be given out.
        """
        return list(
            itertools.takewhile(
                lambda one: one != self.request.end_id and one < vocab_size, guesses
            )
        )

    def target_request(self, guesses: list[int]) -> GenerationRequest:
        """Without guesses, for one token: the next ones can be guessed again."""
        return replace(self.rest(), max_new_tokens=len(guesses) + 1, draft_token_ids=tuple(guesses))

    def take(self, guesses: list[int], token_ids: list[int]) -> TokenChunk:
        """What the target has made of the guesses, as the next chunk of the answer.

        It adds a token to those that it accepts, so that without one it has ended the answer.
        """
        stop = next(
            (i for i, one in enumerate(token_ids, 1) if one in self.request.stop_token_ids), None
        )
        has_ended = token_ids == guesses[: len(token_ids)]
        token_ids = token_ids[:stop]
        self.token_ids += token_ids
        reason = None
        if stop is None and self.num_left < 1:
            reason = FinishReason.LENGTH
        elif stop is not None or has_ended:
            reason = FinishReason.STOP
        return TokenChunk(token_ids=token_ids, finish_reason=reason)

    def _next_part(self) -> str:
        self._num_parts += 1
        return str(self._num_parts)
