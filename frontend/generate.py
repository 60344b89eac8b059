"""The one loop over engine output: token ids -> text -> stop strings -> finish reasons."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from frontend.engine import Engine
from frontend.errors import GenerationFailed
from frontend.text.detokenizer import Decoder, Detokenizer
from frontend.text.stop_matcher import StopMatcher
from frontend.types import FinishReason, GenerationRequest, TextChunk, TokenChunk


async def generate(
    request: GenerationRequest, engine: Engine, decoder: Decoder
) -> AsyncGenerator[TextChunk, None]:
    """Yield the text of every sequence; the last chunk of each has its finish_reason.

    Leaving early, for a stop string or because the client has gone, cancels the engine's work.

    Raises:
        ServingError: the engine failed, before the first chunk or after some.
    """
    sequences = [SequenceText(request, decoder) for _ in range(request.num_sequences)]
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


class SequenceText:
    """One sequence's way from token ids to text that may be shown."""

    def __init__(self, request: GenerationRequest, decoder: Decoder) -> None:
        self._detokenizer = Detokenizer(decoder)
        self._stop_matcher = StopMatcher(request.stop)
        self._stop_token_ids = frozenset(request.stop_token_ids)
        self._num_tokens = 0  # generated since the last chunk
        self.is_finished = False

    def push(self, chunk: TokenChunk) -> TextChunk | None:
        """Return the text that became certain, or None when all of it is held back."""
        chunk = self._cut_at_stop_token(chunk)
        text = self._detokenizer.push(chunk.token_ids) if chunk.token_ids else ""
        reason = chunk.finish_reason
        if reason:
            text += self._detokenizer.flush()
        text, is_stopped = self._stop_matcher.push(text)
        if is_stopped:
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
            stop_string=self._stop_matcher.matched,
            sequence_index=chunk.sequence_index,
            token_ids=chunk.token_ids,
            log_probs=chunk.log_probs,
            top_log_probs=chunk.top_log_probs,
            num_cached_tokens=chunk.num_cached_tokens,
        )

    def _cut_at_stop_token(self, chunk: TokenChunk) -> TokenChunk:
        """Engines emit the stop token that ended the sequence; like an EOS it is not shown."""
        if self._stop_token_ids.isdisjoint(chunk.token_ids):
            return chunk
        end = next(i for i, t in enumerate(chunk.token_ids) if t in self._stop_token_ids)
        return replace(
            chunk,
            token_ids=chunk.token_ids[:end],
            finish_reason=FinishReason.STOP,
            log_probs=chunk.log_probs and chunk.log_probs[:end],
            top_log_probs=chunk.top_log_probs and chunk.top_log_probs[:end],
        )
