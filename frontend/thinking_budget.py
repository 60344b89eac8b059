"""Ends a model's thoughts after so many tokens, so that it goes on with its answer.

Knows models that think between <think> and </think>.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from frontend.engine import TokenSource
from frontend.text.reasoning import THINK, THINK_CLOSING, THINK_END, reasoning_at_start
from frontend.text.tokenizer import TextTokenizer
from frontend.types import FinishReason, GenerationRequest, TokenChunk

_NUM_PROMPT_END_TOKENS = 32  # have a tag and the line ends behind it


class BudgetedThinking:
    """An engine for requests of one sequence, whose thoughts are cut off at the budget.

    The request is stopped there, and a second one continues behind `</think>`: its prompt, but for
    the end, is in the engine's prefix cache. To the reader it is one stream.
    """

    def __init__(self, engine: TokenSource, tokenizer: TextTokenizer, *, budget: int) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._budget = budget

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[TokenChunk, None]:
        thought: list[int] = []
        async with aclosing(self._engine.stream(request)) as chunks:
            async for chunk in chunks:
                room = self._budget - len(thought)
                kept = chunk.token_ids[:room]
                thought += kept
                if room > 0 and self._is_over(request, thought, chunk, kept):
                    break
                yield chunk
            else:
                return
        end = self._tokenizer.encode(THINK_CLOSING, add_special_tokens=False)
        yield replace(chunk, token_ids=kept + end, finish_reason=None)
        async with aclosing(self._answer(request, thought + end)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _is_over(
        self, request: GenerationRequest, thought: list[int], chunk: TokenChunk, kept: list[int]
    ) -> bool:
        """Whether the thought, now with `kept` of the chunk, has met the budget and would go on."""
        if len(thought) < self._budget:
            return False
        ends_itself = chunk.finish_reason is not None and len(kept) == len(chunk.token_ids)
        return not ends_itself and self._is_thinking(request.prompt_token_ids, thought)

    async def _answer(
        self, request: GenerationRequest, token_ids: list[int]
    ) -> AsyncGenerator[TokenChunk, None]:
        answer = request.continued(token_ids, part="answer")
        if answer.max_new_tokens < 1:
            yield TokenChunk(token_ids=[], finish_reason=FinishReason.LENGTH)
            return
        async with aclosing(self._engine.stream(answer)) as chunks:
            async for chunk in chunks:
                # the prompt that the client knows was looked up by the first request
                yield replace(chunk, num_cached_tokens=None)

    def _is_thinking(self, prompt_token_ids: list[int], token_ids: list[int]) -> bool:
        text = self._tokenizer.decode(token_ids, skip_special_tokens=False)
        if THINK_END in text:
            return False
        prompt_end = prompt_token_ids[-_NUM_PROMPT_END_TOKENS:]
        prompt = self._tokenizer.decode(prompt_end, skip_special_tokens=False)
        is_begun = reasoning_at_start(prompt)
        return text.lstrip().startswith(THINK) if is_begun is None else is_begun
