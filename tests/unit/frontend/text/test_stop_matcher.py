from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.text.stop_matcher import StopMatcher


def matched(stop: tuple[str, ...], pieces: list[str]) -> tuple[list[str], bool]:
    """What each push showed (and flush, at the end), and whether a stop string was found."""
    matcher = StopMatcher(stop)
    shown = []
    for piece in pieces:
        text, is_stopped = matcher.push(piece)
        shown.append(text)
        if is_stopped:
            return shown, True
    return [*shown, matcher.flush()], False


def every_cut(text: str) -> list[list[str]]:
    ways = []
    for cuts in itertools.product((False, True), repeat=max(len(text) - 1, 0)):
        ends = [i + 1 for i, is_cut in enumerate(cuts) if is_cut]
        ways.append([text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)])
    return ways


def expected(stop: tuple[str, ...], text: str) -> tuple[str, bool]:
    """The same by the definition: the first end wins, of equal ends the first start."""
    for end in range(1, len(text) + 1):
        starts = [end - len(s) for s in stop if text[:end].endswith(s)]
        if starts:
            return text[: min(starts)], True
    return text, False


@pytest.mark.parametrize(
    ("stop", "text", "shown", "is_stopped"),
    [
        ((), "abc", "abc", False),
        (("END",), "abcENDdef", "abc", True),
        (("END",), "abcENdef", "abcENdef", False),
        (("END",), "abcEN", "abcEN", False),
        (("END",), "ENEND", "EN", True),
        (("END",), "END", "", True),
        (("aab",), "aaab", "a", True),
        (("abab",), "aababab", "a", True),
        (("ab", "bc"), "xabcx", "x", True),
        (("abc", "b"), "xabcx", "xa", True),
        (("bc", "abc"), "xabcx", "x", True),
        (("abc", "bc", "c"), "xabcx", "x", True),
        (("abcd", "bc"), "abcd", "a", True),
        (("。",), "你好。再见", "你好", True),
        (("\n\n",), "a\nb\n\nc", "a\nb", True),
        (("👍🏽",), "好👍👍🏽", "好👍", True),
    ],
)
def test_text_ends_before_the_first_stop_string_however_it_is_cut(
    stop: tuple[str, ...], text: str, shown: str, is_stopped: bool
) -> None:
    for pieces in every_cut(text):
        texts, found = matched(stop, pieces)
        assert ("".join(texts), found) == (shown, is_stopped), pieces


@given(
    stop=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=4).map(tuple),
    text=st.text("abc", max_size=10),
    data=st.data(),
)
def test_overlapping_stop_strings_give_the_same_for_every_cut(
    stop: tuple[str, ...], text: str, data: st.DataObject
) -> None:
    pieces = data.draw(st.sampled_from(every_cut(text)))
    texts, found = matched(stop, pieces)
    assert ("".join(texts), found) == expected(stop, text)


def test_text_that_cannot_become_a_stop_string_is_shown_at_once() -> None:
    texts, _ = matched(("END",), ["a", "b E", "x", "EN", "D"])
    assert texts == ["a", "b ", "Ex", "", ""]


def test_without_stop_strings_nothing_is_held_back() -> None:
    matcher = StopMatcher(())
    assert matcher.push("E") == ("E", False)
    assert matcher.flush() == ""


def test_what_flush_has_given_is_not_given_again() -> None:
    matcher = StopMatcher(("END",))
    matcher.push("EN")
    assert matcher.flush() == "EN"
    assert matcher.flush() == ""


@pytest.mark.parametrize(
    ("text", "matched"), [("a two", "two"), ("ENDED", "END"), ("one, tw", None), ("", None)]
)
def test_the_stop_string_that_was_found_is_told(text: str, matched: str | None) -> None:
    for pieces in ([text], list(text)):
        matcher = StopMatcher(("two", "END", "ENDED", "six"))
        for piece in pieces:
            if matcher.push(piece)[1]:
                break
        assert matcher.matched == matched
