"""Log-probabilities on the wire, in the shapes of chat completions and of completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from frontend.text.detokenizer import Decoder, Detokenizer
from frontend.types import TextChunk, TokenLogProb

# What a token that was not possible at all (a guide, a ban) is shown with: JSON has no infinity.
LOWEST = -9999.0


class TokenTexts(Protocol):
    """What single tokens stand for; `text.tokenizer.TextTokenizer` knows."""

    def token_bytes(self, token_id: int) -> bytes: ...


class CompletionTokens(TokenTexts, Decoder, Protocol):
    """And what they stand for one after the other."""


def chat_log_probs(chunk: TextChunk, tokens: TokenTexts) -> dict[str, Any] | None:
    """`logprobs` of a chat choice, for the tokens of one chunk; None when none were asked for."""
    if chunk.log_probs is None:
        return None
    tops: list[list[TokenLogProb]] = chunk.top_log_probs or [[] for _ in chunk.token_ids]
    content = [
        {
            **_entry(token_id, log_prob, tokens),
            "top_logprobs": [_entry(one.token_id, one.log_prob, tokens) for one in top],
        }
        for token_id, log_prob, top in zip(chunk.token_ids, chunk.log_probs, tops, strict=True)
    ]
    return {"content": content, "refusal": None}


class CompletionLogProbs:
    """`logprobs` of one completion choice, piece by piece.

    A token's `text_offset` is where its text begins in the choice's text, in characters; those of a
    character's single bytes are the character's. The token that ended the choice has no text
    there, but an entry.
    """

    def __init__(self, tokens: CompletionTokens, *, start: int, context: Sequence[int]) -> None:
        """
        Args:
            start: characters of the text before the first generated token (an echoed prompt).
            context: the prompt's last tokens; see `Detokenizer`.
        """
        self._tokens = tokens
        self._detokenizer = Detokenizer(tokens, context)
        self._offset = start

    def encode(self, chunk: TextChunk) -> dict[str, list[Any]]:
        """For the tokens of one chunk."""
        offsets = []
        for token_id in chunk.token_ids:
            offsets.append(self._offset)
            self._offset += len(self._detokenizer.push(token_id))
        log_probs, tops = chunk.log_probs or [], chunk.top_log_probs or [[]] * len(offsets)
        return self._encode(chunk.token_ids, log_probs, tops, offsets)

    def encode_prompt(
        self,
        token_ids: list[int],
        log_probs: list[float],
        top_log_probs: list[list[TokenLogProb]] | None,
        offsets: list[int],
    ) -> dict[str, list[Any]]:
        """For an echoed prompt: nothing comes before its first token that could foretell it.

        Args:
            log_probs: one for each token; the first counts for nothing.
            top_log_probs: of the second token and on.
        """
        tops = [[], *(top_log_probs or [[]] * (len(token_ids) - 1))]
        encoded = self._encode(token_ids, log_probs, tops, list(offsets))
        encoded["token_logprobs"][0] = encoded["top_logprobs"][0] = None
        return encoded

    def _encode(
        self,
        token_ids: list[int],
        log_probs: list[float],
        tops: list[list[TokenLogProb]],
        offsets: list[int],
    ) -> dict[str, list[Any]]:
        chosen = [
            TokenLogProb(token_id=token_id, log_prob=log_prob)
            for token_id, log_prob in zip(token_ids, log_probs, strict=True)
        ]
        return {
            "tokens": [_text(token_id, self._tokens) for token_id in token_ids],
            "token_logprobs": [_finite(one.log_prob) for one in chosen],
            "top_logprobs": [
                self._encode_top([*top, one]) for top, one in zip(tops, chosen, strict=True)
            ],
            "text_offset": offsets,
        }

    def _encode_top(self, candidates: list[TokenLogProb]) -> dict[str, float]:
        """The best ones and the chosen one; of several with one text the best."""
        encoded: dict[str, float] = {}
        for one in candidates:
            encoded.setdefault(_text(one.token_id, self._tokens), _finite(one.log_prob))
        return encoded


def _entry(token_id: int, log_prob: float, tokens: TokenTexts) -> dict[str, Any]:
    raw = tokens.token_bytes(token_id)
    text = raw.decode("utf-8", errors="replace")
    return {"token": text, "logprob": _finite(log_prob), "bytes": list(raw)}


def _text(token_id: int, tokens: TokenTexts) -> str:
    """A token that is only a part of a character is shown by its bytes, as OpenAI does."""
    raw = tokens.token_bytes(token_id)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def _finite(log_prob: float) -> float:
    return max(log_prob, LOWEST)
