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

    Where its answer begins the engine is asked again, with the thoughts as a part of the prompt.
    """
    sequence = _new_sequence(prepared)
    assert isinstance(sequence, ParsedSequence), "what is guided late is parsed before"
    start = _AnswerStart(sequence)
    async with aclosing(engine.stream(prepared.generation)) as chunks:
        async for chunk in chunks:
            for piece in start.push(chunk):
                yield piece
            if start.is_finished:
                return
            if start.is_found:
                break
        else:
            raise GenerationFailed(reason=NO_FINISH_REASON)
    guided = _guided_request(prepared, late, start)
    if guided.generation.max_new_tokens < 1:
        yield TextChunk(text="", num_tokens=0, finish_reason=FinishReason.LENGTH)
        return
    async with aclosing(generate(guided, engine)) as answers:
        async for answer in answers:
            yield replace(answer, num_cached_tokens=None)  # what it counts is the thoughts', too


class _AnswerStart:
    """Reads what comes before an answer, until the answer begins."""

    def __init__(self, sequence: ParsedSequence) -> None:
        self._sequence = sequence
        self._waiting: list[TextChunk] = []  # what may turn out to belong to the answer
        self._has_calls = False
        self.thought_ids: list[int] = []  # all tokens that were given out
        self.is_found = False
        self.is_finished = False

    @property
    def is_within_thoughts(self) -> bool:
        """Whether the model has stopped without an end to them."""
        return self._sequence.is_reasoning

    def push(self, chunk: TokenChunk) -> list[TextChunk]:
        """Return what may be shown; where the answer begins, no more of the chunk is used."""
        shown: list[TextChunk] = []
        for single in single_tokens(chunk):
            shown += self._push(single)
            if self.is_found or self.is_finished:
                break
        self.thought_ids += [token_id for piece in shown for token_id in piece.token_ids]
        return shown

    def _push(self, single: TokenChunk) -> list[TextChunk]:
        was_reasoning = self._sequence.is_reasoning
        piece = self._sequence.push(single)
        if piece is None:
            return []
        self._waiting.append(piece)
        self._has_calls = self._has_calls or bool(piece.tool_calls)
        self.is_found = not self._has_calls and self._begins_answer(piece)
        if self.is_found:
            return [_thoughts_of(waiting) for waiting in self._waiting]
        self.is_finished = piece.finish_reason is not None
        if not (
            was_reasoning or self._sequence.is_reasoning or self._has_calls or self.is_finished
        ):
            return []
        given, self._waiting = self._waiting, []
        return given

    def _begins_answer(self, piece: TextChunk) -> bool:
        has_ended = piece.finish_reason is FinishReason.STOP and not self._sequence.is_stopped
        return has_ended or bool(piece.text.strip())


def _thoughts_of(chunk: TextChunk) -> TextChunk:
    """The chunk without the answer that begins in it; thoughts are its first tokens."""
    num_tokens = chunk.num_reasoning_tokens
    return replace(
        chunk,
        text="",
        num_tokens=num_tokens,
        finish_reason=None,
        token_ids=chunk.token_ids[:num_tokens],
        log_probs=chunk.log_probs and chunk.log_probs[:num_tokens],
        top_log_probs=chunk.top_log_probs and chunk.top_log_probs[:num_tokens],
    )


def _guided_request(
    prepared: PreparedRequest, late: LateGuide, start: _AnswerStart
) -> PreparedRequest:
    """The request for the answer."""
    end_ids = late.end_of_thoughts_ids if start.is_within_thoughts else []
    opening_ids = late.opening_ids if start.thought_ids else late.first_opening_ids
    generation = prepared.generation.continued(
        [*start.thought_ids, *end_ids, *opening_ids], part="guided"
    )
    return replace(
        prepared,
        generation=replace(generation, sampling=replace(generation.sampling, guide=late.guide)),
        decoder=prepared.tokenizer,
        new_parser=late.new_parser,
        late_guide=None,
    )
