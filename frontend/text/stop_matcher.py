"""Cuts text at the first stop string, however the text arrives."""

from __future__ import annotations


class StopMatcher:
    """Holds back a tail that could still become a stop string.

    The stop string that is completed first wins; of two completed by the same character, the
    longer. So the result does not depend on how the text was cut.
    """

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._stop = stop
        self._held = ""
        self.matched: str | None = None  # the stop string that was found

    def push(self, text: str) -> tuple[str, bool]:
        """Return the text that may be shown now, and whether a stop string was found."""
        if not self._stop:
            return text, False
        text = self._held + text
        found = [(start + len(s), start, s) for s in self._stop if (start := text.find(s)) >= 0]
        if found:
            self._held = ""
            _, start, self.matched = min(found)
            return text[:start], True
        num_held = max(_overlap(text, s) for s in self._stop)
        self._held = text[len(text) - num_held :]
        return text[: len(text) - num_held], False

    def flush(self) -> str:
        """Return what is held back: the text has ended, so it is no stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
