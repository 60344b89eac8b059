"""Log-probabilities on the wire, in the shapes of chat completions and of completions."""

from __future__ import annotations

from typing import Any, Protocol

from frontend.types import TextChunk, TokenLogProb

# What a token that was not possible at all (a guide, a ban) is shown with: JSON has no infinity.
LOWEST = -9999.0


class TokenTexts(Protocol):
    """What single tokens stand for; `text.tokenizer.TextTokenizer` knows."""

    def token_bytes(self, token_id: int) -> bytes: ...


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
    """`logprobs` of a completion choice; offsets count characters from the text's start."""

    def __init__(self, tokens: TokenTexts) -> None:
        self._tokens = tokens
        self._offset = 0

    def encode(self, chunk: TextChunk) -> dict[str, Any] | None:
        """For the tokens of one chunk; None when none were asked for."""
        if chunk.log_probs is None:
            return None
        texts, offsets = [], []
        for token_id in chunk.token_ids:
            text = _text(token_id, self._tokens)
            texts.append(text)
            offsets.append(self._offset)
            self._offset += len(text)
        tops = chunk.top_log_probs or [[] for _ in chunk.token_ids]
        return {
            "tokens": texts,
            "token_logprobs": [_finite(log_prob) for log_prob in chunk.log_probs],
            "top_logprobs": [
                {_text(one.token_id, self._tokens): _finite(one.log_prob) for one in top}
                for top in tops
            ],
            "text_offset": offsets,
        }


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
