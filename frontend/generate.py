"""The one loop over engine output: token ids -> text -> stop strings -> finish reasons."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import replace

from frontend.engine import Engine
from frontend.errors import GenerationFailed
from frontend.prepare import PreparedRequest
from frontend.text.detokenizer import Decoder, Detokenizer
from frontend.text.output_parser import OutputParser, ParsedText
from frontend.text.stop_matcher import StopMatcher
from frontend.types import (
    FinishReason,
    GenerationRequest,
    TextChunk,
    TokenChunk,
    ToolCallDelta,
)


async def generate(prepared: PreparedRequest, engine: Engine) -> AsyncGenerator[TextChunk, None]:
    """Yield the text of every sequence; the last chunk of each has its finish_reason.

    Leaving early, for a stop string or because the client has gone, cancels the engine's work.

    Raises:
        ServingError: the engine failed, before the first chunk or after some.
    """
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
    raise GenerationFailed(reason="the engine's stream ended without a finish reason")


def _new_sequence(prepared: PreparedRequest) -> SequenceText:
    if prepared.new_parser is None:
        return SequenceText(prepared.generation, prepared.decoder)
    return ParsedSequence(prepared.generation, prepared.decoder, prepared.new_parser())


class SequenceText:
    """One sequence's way from token ids to text that may be shown."""

    def __init__(self, request: GenerationRequest, decoder: Decoder) -> None:
        self._detokenizer = Detokenizer(decoder)
        self._stop_matcher = StopMatcher(request.stop)
        self._stop_token_ids = frozenset(request.stop_token_ids)
        self._num_tokens = 0  # generated since the last chunk
        self.is_finished = False
        self.is_stopped = False  # by a stop string

    def push(self, chunk: TokenChunk) -> TextChunk | None:
        """Return the text that became certain, or None when all of it is held back."""
        chunk = self._cut_at_stop_token(chunk)
        text = self._detokenizer.push(chunk.token_ids) if chunk.token_ids else ""
        reason = chunk.finish_reason
        if reason:
            text += self._detokenizer.flush()
        text, self.is_stopped = self._stop_matcher.push(text)
        if self.is_stopped:
            reason = FinishReason.STOP
        elif reason:
            text += self._stop_matcher.flush()
        self._num_tokens += len(chunk.token_ids)
        self.is_finished = reason is not None
        if not text and not reason and chunk.log_probs is None and chunk.num_cached_tokens is None:
            return None
        num_tokens, self._num_tokens = self._num_tokens, 0
        return TextChunk(
            text=text,
            num_tokens=num_tokens,
            finish_reason=reason,
            sequence_index=chunk.sequence_index,
            token_ids=chunk.token_ids,
            log_probs=chunk.log_probs,
            top_log_probs=chunk.top_log_probs,
            num_cached_tokens=chunk.num_cached_tokens,
            prompt_log_probs=chunk.prompt_log_probs,
            prompt_top_log_probs=chunk.prompt_top_log_probs,
        )

    def _cut_at_stop_token(self, chunk: TokenChunk) -> TokenChunk:
        """Engines emit the stop token that ended the sequence; like an EOS it is not shown."""
        if self._stop_token_ids.isdisjoint(chunk.token_ids):
            return chunk
        end = next(i for i, t in enumerate(chunk.token_ids) if t in self._stop_token_ids)
        return replace(_first_tokens(chunk, end), finish_reason=FinishReason.STOP)


class ParsedSequence(SequenceText):
    """The same, with thoughts and tool calls told apart from the answer.

    Takes tokens one by one, so that those of the reasoning are counted exactly.
    """

    def __init__(self, request: GenerationRequest, decoder: Decoder, parser: OutputParser) -> None:
        super().__init__(request, decoder)
        self._parser = parser
        self._num_parsed_tokens = 0  # since the last chunk, as the next one
        self._num_reasoning_tokens = 0

    def push(self, chunk: TokenChunk) -> TextChunk | None:
        """Like SequenceText's; behind a stop string's token, no more of the chunk is used."""
        chunk = self._cut_at_stop_token(chunk)
        pieces: list[ParsedText] = []
        num_used = 0
        reason = None
        for single in _single_tokens(chunk):
            was_reasoning = self._parser.is_reasoning
            piece = super().push(single)
            if piece is not None:
                self._num_parsed_tokens += piece.num_tokens
                pieces.append(self._parse(piece))
                reason = self._reason(piece)
            num_used += len(single.token_ids)
            if was_reasoning or self._parser.is_reasoning:
                self._num_reasoning_tokens += len(single.token_ids)
            if reason is not None:
                break
        self.is_finished = reason is not None
        return self._chunk(_first_tokens(chunk, num_used), _joined(pieces), reason)

    def _parse(self, piece: TextChunk) -> ParsedText:
        parsed = self._parser.push(piece.text) if piece.text else ParsedText()
        if piece.finish_reason and not self._parser.is_over:
            return _joined([parsed, self._parser.flush()])
        return parsed

    def _reason(self, piece: TextChunk) -> FinishReason | None:
        has_ended = piece.finish_reason is FinishReason.STOP and not self.is_stopped
        if self._parser.is_over or (has_ended and self._parser.has_calls):
            return FinishReason.TOOL_CALLS
        return piece.finish_reason

    def _chunk(
        self, chunk: TokenChunk, parsed: ParsedText, reason: FinishReason | None
    ) -> TextChunk | None:
        is_empty = parsed == ParsedText() and reason is None
        if is_empty and chunk.log_probs is None and chunk.num_cached_tokens is None:
            return None
        num_tokens, self._num_parsed_tokens = self._num_parsed_tokens, 0
        num_reasoning_tokens, self._num_reasoning_tokens = self._num_reasoning_tokens, 0
        return TextChunk(
            text=parsed.content,
            reasoning=parsed.reasoning,
            tool_calls=parsed.tool_calls,
            num_tokens=num_tokens,
            num_reasoning_tokens=num_reasoning_tokens,
            finish_reason=reason,
            sequence_index=chunk.sequence_index,
            token_ids=chunk.token_ids,
            log_probs=chunk.log_probs,
            top_log_probs=chunk.top_log_probs,
            num_cached_tokens=chunk.num_cached_tokens,
            prompt_log_probs=chunk.prompt_log_probs,
            prompt_top_log_probs=chunk.prompt_top_log_probs,
        )


def _first_tokens(chunk: TokenChunk, num_tokens: int) -> TokenChunk:
    if num_tokens == len(chunk.token_ids):
        return chunk
    return replace(
        chunk,
        token_ids=chunk.token_ids[:num_tokens],
        log_probs=chunk.log_probs and chunk.log_probs[:num_tokens],
        top_log_probs=chunk.top_log_probs and chunk.top_log_probs[:num_tokens],
    )


def _single_tokens(chunk: TokenChunk) -> Iterator[TokenChunk]:
    """The chunk's tokens, each alone; the finish reason goes with the last."""
    for token_id in chunk.token_ids[:-1]:
        yield TokenChunk(token_ids=[token_id])
    yield TokenChunk(token_ids=chunk.token_ids[-1:], finish_reason=chunk.finish_reason)


def _joined(pieces: list[ParsedText]) -> ParsedText:
    if len(pieces) == 1:
        return pieces[0]
    calls: dict[int, ToolCallDelta] = {}
    for delta in (delta for piece in pieces for delta in piece.tool_calls):
        begun = calls.get(delta.index)
        if begun is not None:
            arguments = begun.arguments + delta.arguments
            delta = ToolCallDelta(begun.index, begun.id, begun.name, arguments)
        calls[delta.index] = delta
    return ParsedText(
        "".join(piece.content for piece in pieces),
        "".join(piece.reasoning for piece in pieces),
        tuple(calls.values()),
    )
