"""What /v1/completions answers: one body, or stream chunks of the same shape.

Source: OpenAI's API description 2.3.0, CreateCompletionResponse; `token_ids` as vLLM has them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from frontend.protocol.log_probs import CompletionLogProbs, CompletionTokens
from frontend.protocol.wire import UsageCounter, sse_event
from frontend.types import FinishReason, TextChunk, TokenLogProb

OBJECT = "text_completion"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionPrompt:
    """One prompt as it is echoed."""

    token_ids: list[int]
    context: tuple[int, ...] = ()  # its last tokens; see `Detokenizer`
    text: str = ""
    offsets: list[int] = field(default_factory=list)  # in `text`, one for each token


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionAnswerOptions:
    """How the request wants its answer."""

    num_choices: int = 1  # for each prompt
    num_candidates: int = 1  # of which they are the best
    echoes: bool = False
    includes_log_probs: bool = False
    includes_token_ids: bool = False
    includes_usage: bool = False


@dataclass(slots=True, kw_only=True)
class Candidate:
    """What one sequence has brought so far, and how well it went."""

    text: str = ""
    log_probs: dict[str, list[Any]] | None = None
    token_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    sum_log_probs: float = 0.0
    num_log_probs: int = 0

    def add(self, piece: Candidate) -> None:
        self.text += piece.text
        self.add_log_probs(piece.log_probs)
        self.token_ids += piece.token_ids
        self.finish_reason = piece.finish_reason or self.finish_reason
        self.sum_log_probs += piece.sum_log_probs
        self.num_log_probs += piece.num_log_probs

    def add_log_probs(self, log_probs: dict[str, list[Any]] | None) -> None:
        if self.log_probs is None or log_probs is None:
            self.log_probs = self.log_probs or log_probs
            return
        for key, values in log_probs.items():
            self.log_probs[key] += values

    @property
    def mean_log_prob(self) -> float:
        return self.sum_log_probs / self.num_log_probs if self.num_log_probs else float("-inf")


class PromptCandidates:
    """Turns the chunks of one prompt's sequences into pieces of its choices."""

    def __init__(
        self, prompt: CompletionPrompt, tokens: CompletionTokens, options: CompletionAnswerOptions
    ) -> None:
        self._prompt = prompt
        self._tokens = tokens
        self._options = options
        self._log_probs: dict[int, CompletionLogProbs] = {}
        self._prompt_log_probs: tuple[list[float], list[list[TokenLogProb]] | None] = ([], None)

    def take(self, chunk: TextChunk) -> Candidate:
        """The piece of a choice that a chunk brings; a choice's first has the echoed prompt."""
        if chunk.prompt_log_probs is not None:  # before any other sequence's chunk
            self._prompt_log_probs = (chunk.prompt_log_probs, chunk.prompt_top_log_probs)
        piece = Candidate(finish_reason=chunk.finish_reason)
        log_probs = self._log_probs.get(chunk.sequence_index)
        if log_probs is None:
            log_probs = self._begin(chunk.sequence_index, piece)
        piece.text += chunk.text
        piece.token_ids = list(chunk.token_ids)
        if chunk.log_probs is not None:
            piece.sum_log_probs = sum(chunk.log_probs)
            piece.num_log_probs = len(chunk.log_probs)
            if self._options.includes_log_probs:
                piece.add_log_probs(log_probs.encode(chunk))
        return piece

    def _begin(self, sequence_index: int, piece: Candidate) -> CompletionLogProbs:
        prompt = self._prompt
        start = len(prompt.text) if self._options.echoes else 0
        log_probs = self._log_probs[sequence_index] = CompletionLogProbs(
            self._tokens, start=start, context=prompt.context
        )
        if self._options.echoes:
            piece.text = prompt.text
            if self._options.includes_log_probs:
                piece.log_probs = log_probs.encode_prompt(
                    prompt.token_ids, *self._prompt_log_probs, prompt.offsets
                )
        return log_probs


class CompletionEncoder:
    """Writes one request's answer, plain or as stream events."""

    def __init__(
        self,
        *,
        request_id: str,
        model: str,
        created: int,
        fingerprint: str,
        prompts: list[CompletionPrompt],
        tokens: CompletionTokens,
        options: CompletionAnswerOptions,
    ) -> None:
        self._base: dict[str, Any] = {
            "id": request_id,
            "object": OBJECT,
            "created": created,
            "model": model,
            "system_fingerprint": fingerprint,
        }
        self._prompts = prompts
        self._options = options
        self._candidates = [PromptCandidates(prompt, tokens, options) for prompt in prompts]
        num_prompt_tokens = sum(len(prompt.token_ids) for prompt in prompts)
        self._usage = UsageCounter(num_prompt_tokens=num_prompt_tokens)

    async def encode_stream(
        self, chunks: AsyncIterator[tuple[int, TextChunk]]
    ) -> AsyncGenerator[bytes, None]:
        """Yield SSE events: the choices' pieces, the usage, [DONE].

        Args:
            chunks: each behind the index of its prompt; every choice ends with a finish reason.
        """
        if self._options.includes_usage:
            self._base["usage"] = None  # in every chunk but the one that has it
        started: set[int] = set()
        async for prompt_index, chunk in chunks:
            index = prompt_index * self._options.num_choices + chunk.sequence_index
            piece = self._take(prompt_index, chunk)
            if piece.text or piece.log_probs or piece.finish_reason or piece.token_ids:
                is_first = index not in started
                started.add(index)
                choice = self._encode_choice(index, piece, has_prompt_ids=is_first)
                yield sse_event({**self._base, "choices": [choice]})
        if self._options.includes_usage:
            yield sse_event({**self._base, "choices": [], "usage": self._usage.encode()})
        yield b"data: [DONE]\n\n"

    async def encode(self, chunks: AsyncIterator[tuple[int, TextChunk]]) -> dict[str, Any]:
        """Fold the same stream into one body."""
        found: list[dict[int, Candidate]] = [{} for _ in self._prompts]
        async for prompt_index, chunk in chunks:
            piece = self._take(prompt_index, chunk)
            found[prompt_index].setdefault(chunk.sequence_index, Candidate()).add(piece)
        best = [candidate for candidates in found for candidate in self._choose(candidates)]
        return {
            **self._base,
            "choices": [
                self._encode_choice(index, candidate, has_prompt_ids=True)
                for index, candidate in enumerate(best)
            ],
            "usage": self._usage.encode(),
        }

    def _take(self, prompt_index: int, chunk: TextChunk) -> Candidate:
        self._usage.add(chunk, prompt_index=prompt_index)
        return self._candidates[prompt_index].take(chunk)

    def _choose(self, candidates: dict[int, Candidate]) -> list[Candidate]:
        """A prompt's choices: with `best_of` the likeliest a token, the best first."""
        options = self._options
        ordered = [candidates[index] for index in sorted(candidates)]
        if options.num_candidates > options.num_choices:
            ordered.sort(key=lambda candidate: candidate.mean_log_prob, reverse=True)
        return ordered[: options.num_choices]

    def _encode_choice(
        self, index: int, candidate: Candidate, *, has_prompt_ids: bool
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {
            "index": index,
            "text": candidate.text,
            "logprobs": candidate.log_probs,
            "finish_reason": candidate.finish_reason,
        }
        if self._options.includes_token_ids:
            choice["token_ids"] = candidate.token_ids
            if has_prompt_ids:
                prompt = self._prompts[index // self._options.num_choices]
                choice["prompt_token_ids"] = prompt.token_ids
        return choice
