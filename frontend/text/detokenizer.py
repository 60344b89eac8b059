"""Token ids -> text, incrementally, without ever showing half a character."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

REPLACEMENT = "\ufffd"
# A UTF-8 character has at most 4 bytes and a token at least one, so that a character whose end is
# still to come has begun in one of the last three tokens.
MAX_UNFINISHED_TOKENS = 3


class Decoder(Protocol):
    """What a tokenizer must do here; `tokenizers.Tokenizer` does."""

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str: ...


class MarkupDecoder:
    """Shows special tokens, for parsers that read them; those that end an answer stay hidden."""

    def __init__(self, decoder: Decoder, end_ids: Collection[int]) -> None:
        self._decoder = decoder
        self._end_ids = frozenset(end_ids)

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        shown = [token_id for token_id in ids if token_id not in self._end_ids]
        return self._decoder.decode(shown, skip_special_tokens=False)


class Detokenizer:
    """Decodes a sequence in a sliding window.

    Tokens are decoded together with those before them, because a decoder may treat the first one
    differently (SentencePiece strips its space), and are held back while the text ends in the
    middle of a character. Source: the prefix and read offsets of TGI's `decode_token`
    (server/text_generation_server/models/model.py).
    """

    def __init__(self, decoder: Decoder, context: Sequence[int] = ()) -> None:
        """
        Args:
            context: tokens that stand before the text, of which nothing is given out: the last ones
                of a prompt that is continued.
        """
        self._decoder = decoder
        self._prefix = list(context)  # the last tokens whose text has been given out
        self._prefix_text = decoder.decode(self._prefix) if context else ""
        self._held: list[int] = []  # those after them; their text ends in mid-character
        self._num_shown = 0  # characters of the held tokens' text that have been given out
        self._num_unfinished = 0  # held tokens since a character was last finished

    def push(self, token_id: int) -> str:
        """Add a token; return the text that became certain."""
        self._held.append(token_id)
        self._num_unfinished += 1
        text = self._held_text(self._held)
        if not text:
            return self._skip()
        if not text.endswith(REPLACEMENT):
            return self._give_out(text)
        if new_text := text.rstrip(REPLACEMENT)[self._num_shown :]:
            self._num_shown += len(new_text)
            self._num_unfinished = 1
            return new_text
        if self._num_unfinished > MAX_UNFINISHED_TOKENS:
            return self._give_up_first()
        return ""

    def flush(self) -> str:
        """Return what is held back, but for a half character at its very end."""
        for start in range(1, len(self._held)):
            # Behind bytes that are no character there may be whole ones.
            text = self._decoder.decode(self._held[start:])
            if not text.endswith(REPLACEMENT):
                self._held.clear()
                return REPLACEMENT * start + text
        return ""

    def _held_text(self, held: list[int]) -> str:
        text = self._decoder.decode(self._prefix + held)
        if text.startswith(self._prefix_text):
            return text[len(self._prefix_text) :]
        # Bytes that are no character spoil those before them in a byte-fallback tokenizer.
        return self._decoder.decode(held)

    def _give_out(self, text: str) -> str:
        """All held tokens are whole characters: they become the prefix of the next ones."""
        new_text = text[self._num_shown :]
        self._prefix, self._held = self._held, []
        self._prefix_text = self._decoder.decode(self._prefix)
        self._num_shown = self._num_unfinished = 0
        return new_text

    def _skip(self) -> str:
        """The token has no text: a special one, or a space that begins the text."""
        if not self._prefix_text:
            self._prefix += self._held
        self._held.clear()
        self._num_unfinished = 0
        return ""

    def _give_up_first(self) -> str:
        """The first held tokens are never going to be a character; the last three may yet."""
        first, self._held = (
            self._held[:-MAX_UNFINISHED_TOKENS],
            self._held[-MAX_UNFINISHED_TOKENS:],
        )
        new_text = self._held_text(first)[self._num_shown :]
        self._prefix, self._prefix_text = [], ""
        self._num_shown, self._num_unfinished = 0, MAX_UNFINISHED_TOKENS
        text = self._decoder.decode(self._held)
        return new_text if text.endswith(REPLACEMENT) else new_text + self._give_out(text)
