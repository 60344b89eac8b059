"""The one loop over engine output: token ids -> text -> stop strings -> finish reasons."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from frontend.chat_prompt import LateGuide
from frontend.engine import TokenSource
from frontend.errors import GenerationFailed
from frontend.prepare import PreparedRequest
from frontend.sequence_text import ParsedSequence, SequenceText, single_tokens
from frontend.types import FinishReason, TextChunk, TokenChunk

NO_FINISH_REASON = "the engine's stream ended without a finish reason"


async def generate(
    prepared: PreparedRequest, engine: TokenSource
) -> AsyncGenerator[TextChunk, None]:
    """Yield the text of every sequence; the last chunk of each has its finish_reason.

    Leaving early, for a stop string or because the client has gone, cancels the engine's work.

    Raises:
        ServingError: the engine failed, before the first chunk or after some.
    """
    if prepared.late_guide is not None:
        async with aclosing(_generate_late(prepared, prepared.late_guide, engine)) as parts:
            async for part in parts:
                yield part
        return
    request = prepared.generation
    sequences = [_new_sequence(prepared) for _ in range(request.num_sequences)]
    num_open = len(sequences)
    async with aclosing(engine.stream(request)) as chunks:
        async for chunk in chunks:
            sequence = sequences[chunk.sequence_index]
            if sequence.is_finished:
                continue
            text_chunk = sequence.push(chunk)
            if text_chunk is not None:
                yield text_chunk
            num_open -= sequence.is_finished
            if not num_open:
                return
    raise GenerationFailed(reason=NO_FINISH_REASON)


def _new_sequence(prepared: PreparedRequest) -> SequenceText | ParsedSequence:
    text = SequenceText(prepared.generation, prepared.decoder, prepared.context_token_ids)
    return text if prepared.new_parser is None else ParsedSequence(text, prepared.new_parser())


async def _generate_late(
    prepared: PreparedRequest, late: LateGuide, engine: TokenSource
) -> AsyncGenerator[TextChunk, None]:
    """Let the model think, and call tools, as it likes; but what it answers follows the guide.

    Where its answer begins the engine is asked again, with the thoughts as a part of the prompt:
    its prefix cache has them.
    """
    start = _AnswerStart(prepared, late)
    async with aclosing(engine.stream(prepared.generation)) as chunks:
        async for chunk in chunks:
            for single in single_tokens(chunk):
                for piece in start.push(single):
                    yield piece
                if start.is_finished:
                    return
                if start.is_found:
                    break
            if start.is_found:
                break
        else:
            raise GenerationFailed(reason=NO_FINISH_REASON)
    yield start.rest_of_thoughts()
    guided = start.guided_request()
    if guided.generation.max_new_tokens < 1:
        yield TextChunk(text="", num_tokens=0, finish_reason=FinishReason.LENGTH)
        return
    async with aclosing(generate(guided, engine)) as answers:
        async for answer in answers:
            yield replace(answer, num_cached_tokens=None)  # what it counts is the thoughts', too


class _AnswerStart:
    """Reads what comes before an answer, token by token, until the answer begins."""

    def __init__(self, prepared: PreparedRequest, late: LateGuide) -> None:
        assert prepared.new_parser is not None, "what is guided late is parsed before"
        self._prepared, self._late = prepared, late
        text = SequenceText(prepared.generation, prepared.decoder)
        self._sequence = ParsedSequence(text, prepared.new_parser())
        self._token_ids: list[int] = []
        self._num_thought = 0  # the first tokens of them
        self._num_given_out = 0  # in chunks, as the next one
        self._num_reasoning_given_out = 0
        self._waiting: list[TextChunk] = []  # what may turn out to belong to the answer
        self._has_calls = False
        self.is_found = False
        self.is_finished = False

    def push(self, chunk: TokenChunk) -> list[TextChunk]:
        """Add one token; return what may be shown."""
        was_reasoning = self._sequence.is_reasoning
        piece = self._sequence.push(chunk)
        self._token_ids += chunk.token_ids
        if was_reasoning or self._sequence.is_reasoning:
            self._num_thought = len(self._token_ids)
        if piece is None:
            return []
        self._has_calls = self._has_calls or bool(piece.tool_calls)
        self.is_found = not self._has_calls and self._begins_answer(piece)
        if self.is_found:
            return []
        self.is_finished = piece.finish_reason is not None
        self._waiting.append(piece)
        is_thought = self._num_thought == len(self._token_ids)
        return self._give_out() if is_thought or self._has_calls or self.is_finished else []

    def rest_of_thoughts(self) -> TextChunk:
        """Those of their tokens that have not been given out."""
        token_ids = self._token_ids[self._num_given_out : self._num_thought]
        num_reasoning_tokens = self._num_thought - self._num_reasoning_given_out
        return TextChunk(
            text="",
            num_tokens=len(token_ids),
            token_ids=token_ids,
            num_reasoning_tokens=num_reasoning_tokens,
        )

    def _give_out(self) -> list[TextChunk]:
        given, self._waiting = self._waiting, []
        self._num_given_out += sum(piece.num_tokens for piece in given)
        self._num_reasoning_given_out += sum(piece.num_reasoning_tokens for piece in given)
        return given

    def _begins_answer(self, piece: TextChunk) -> bool:
        has_ended = piece.finish_reason is FinishReason.STOP and not self._sequence.is_stopped
        return has_ended or bool(piece.text.strip())

    def guided_request(self) -> PreparedRequest:
        """The request for the answer."""
        first, late = self._prepared.generation, self._late
        opening_ids = late.opening_ids if self._num_thought else late.first_opening_ids
        prefix_ids = [*self._token_ids[: self._num_thought], *opening_ids]
        generation = replace(
            first,
            request_id=f"{first.request_id}-guided",
            prompt_token_ids=first.prompt_token_ids + prefix_ids,
            max_new_tokens=first.max_new_tokens - len(prefix_ids),
            sampling=replace(first.sampling, guide=late.guide),
        )
        return replace(
            self._prepared,
            generation=generation,
            decoder=self._prepared.tokenizer,
            new_parser=late.new_parser,
            late_guide=None,
        )
