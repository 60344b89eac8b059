"""One sequence's way from the engine's tokens to what may be shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

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


class SequenceText:
    """One sequence's way from token ids to text that may be shown."""

    def __init__(
        self, request: GenerationRequest, decoder: Decoder, context_token_ids: Sequence[int] = ()
    ) -> None:
        self._detokenizer = Detokenizer(decoder, context_token_ids)
        self._stop_matcher = StopMatcher(request.stop)
        self._stop_token_ids = frozenset(request.stop_token_ids)
        self._shows_stop_token = request.shows_stop_token
        self._held_ids: list[int] = []  # tokens since the last chunk
        self.is_finished = False

    @property
    def stop_string(self) -> str | None:
        """The stop string that has ended it."""
        return self._stop_matcher.matched

    def push(self, chunk: TokenChunk) -> TextChunk | None:
        """Return the text that became certain, or None when all of it is held back."""
        whole, cut = chunk, self.cut_at_stop_token(chunk)
        text, chunk = self._read(cut)
        reason = chunk.finish_reason
        self.is_finished = reason is not None
        if not text and not reason and chunk.log_probs is None and chunk.num_cached_tokens is None:
            self._held_ids += chunk.token_ids
            return None
        num_tokens = len(self._held_ids) + len(chunk.token_ids)
        if self._shows_stop_token and cut is not whole and self.stop_string is None:
            chunk = _first_tokens(whole, len(chunk.token_ids) + 1)
        token_ids = chunk.token_ids
        if self._held_ids:
            token_ids, self._held_ids = self._held_ids + token_ids, []
        return TextChunk(
            text=text,
            num_tokens=num_tokens,
            finish_reason=reason,
            stop_string=self.stop_string,
            sequence_index=chunk.sequence_index,
            token_ids=token_ids,
            log_probs=chunk.log_probs,
            top_log_probs=chunk.top_log_probs,
            num_cached_tokens=chunk.num_cached_tokens,
            prompt_log_probs=chunk.prompt_log_probs,
            prompt_top_log_probs=chunk.prompt_top_log_probs,
        )

    def _read(self, chunk: TokenChunk) -> tuple[str, TokenChunk]:
        """The text that became certain, and the chunk: none of it behind a stop string's token."""
        texts = []
        for num_read, token_id in enumerate(chunk.token_ids, 1):
            text, is_stopped = self._stop_matcher.push(self._detokenizer.push(token_id))
            texts.append(text)
            if is_stopped:
                chunk = _first_tokens(chunk, num_read)
                return "".join(texts), replace(chunk, finish_reason=FinishReason.STOP)
        if chunk.finish_reason:
            text, is_stopped = self._stop_matcher.push(self._detokenizer.flush())
            texts += (text, self._stop_matcher.flush())
            if is_stopped:
                chunk = replace(chunk, finish_reason=FinishReason.STOP)
        return "".join(texts), chunk

    def cut_at_stop_token(self, chunk: TokenChunk) -> TokenChunk:
        """Engines emit the stop token that ended the sequence; like an EOS it is not shown."""
        if self._stop_token_ids.isdisjoint(chunk.token_ids):
            return chunk
        end = next(i for i, t in enumerate(chunk.token_ids) if t in self._stop_token_ids)
        return replace(_first_tokens(chunk, end), finish_reason=FinishReason.STOP)


class ParsedSequence:
    """A SequenceText whose thoughts and tool calls are told apart from the answer.

    Takes tokens one by one, so that those of the reasoning are counted exactly.
    """

    def __init__(self, text: SequenceText, parser: OutputParser) -> None:
        self._text = text
        self._parser = parser
        self._held_ids: list[int] = []  # tokens since the last chunk
        self._num_reasoning_tokens = 0  # of them
        self.is_finished = False

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string has ended it."""
        return self._text.stop_string is not None

    @property
    def is_reasoning(self) -> bool:
        """Whether the next token would be one of the reasoning's."""
        return self._parser.is_reasoning

    def push(self, chunk: TokenChunk) -> TextChunk | None:
        """Like SequenceText's; behind a stop string's token, no more of the chunk is used."""
        chunk = self._text.cut_at_stop_token(chunk)
        pieces: list[ParsedText] = []
        num_used = 0
        reason = None
        for single in single_tokens(chunk):
            was_reasoning = self._parser.is_reasoning
            piece = self._text.push(single)
            if piece is not None:
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
            self._held_ids += chunk.token_ids
            return None
        token_ids, self._held_ids = self._held_ids + chunk.token_ids, []
        num_reasoning_tokens, self._num_reasoning_tokens = self._num_reasoning_tokens, 0
        return TextChunk(
            text=parsed.content,
            reasoning=parsed.reasoning,
            tool_calls=parsed.tool_calls,
            num_tokens=len(token_ids),
            num_reasoning_tokens=num_reasoning_tokens,
            finish_reason=reason,
            stop_string=self._text.stop_string,
            sequence_index=chunk.sequence_index,
            token_ids=token_ids,
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


def single_tokens(chunk: TokenChunk) -> Iterator[TokenChunk]:
    """The chunk's tokens, each alone; what comes once a chunk goes with the last of them."""
    last = len(chunk.token_ids) - 1
    for i in range(last):
        yield TokenChunk(
            token_ids=[chunk.token_ids[i]],
            sequence_index=chunk.sequence_index,
            log_probs=chunk.log_probs and [chunk.log_probs[i]],
            top_log_probs=chunk.top_log_probs and [chunk.top_log_probs[i]],
        )
    yield replace(
        chunk,
        token_ids=chunk.token_ids[last:],
        log_probs=chunk.log_probs and chunk.log_probs[last:],
        top_log_probs=chunk.top_log_probs and chunk.top_log_probs[last:],
    )


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
