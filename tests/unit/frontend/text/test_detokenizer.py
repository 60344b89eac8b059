from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from frontend.text.detokenizer import REPLACEMENT, Detokenizer
from tests.fakes.tokenizers import (
    BOS,
    END_OF_TURN,
    byte_letter,
    byte_level_tokenizer,
    id_of,
    sentencepiece_tokenizer,
)

BYTE_LEVEL = byte_level_tokenizer()
SENTENCEPIECE = sentencepiece_tokenizer()
TOKENIZERS = {"byte_level": BYTE_LEVEL, "sentencepiece": SENTENCEPIECE}

ZWJ_FAMILY = "👩\u200d👧"
TEXTS = (
    *("", "hello", "你好", "é", "e\u0301", "👍🏽", ZWJ_FAMILY, "a👍b", "नि", "\n\t 你"),
    "  hello world",
)


def pushed(tokenizer: Tokenizer, token_ids: Sequence[int]) -> tuple[list[str], str]:
    """What each push gave, and what flush gave."""
    detokenizer = Detokenizer(tokenizer)
    return [detokenizer.push(token_id) for token_id in token_ids], detokenizer.flush()


def detokenized(tokenizer: Tokenizer, token_ids: Sequence[int]) -> str:
    texts, rest = pushed(tokenizer, token_ids)
    return "".join(texts) + rest


def byte_ids(tokenizer: Tokenizer, data: bytes) -> list[int]:
    """The tokens that stand for these bytes, characters or not."""
    if tokenizer is SENTENCEPIECE:
        return [id_of(tokenizer, f"<0x{byte:02X}>") for byte in data]
    return [id_of(tokenizer, byte_letter(byte)) for byte in data]


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return TOKENIZERS[request.param]


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back_whole(tokenizer: Tokenizer, text: str) -> None:
    assert detokenized(tokenizer, tokenizer.encode(text).ids) == text


@pytest.mark.parametrize("text", TEXTS)
def test_no_push_ever_shows_half_a_character(tokenizer: Tokenizer, text: str) -> None:
    token_ids = tokenizer.encode(text).ids
    shown = ""
    detokenizer = Detokenizer(tokenizer)
    for token_id in token_ids:
        shown += detokenizer.push(token_id)
        assert text.startswith(shown)
        assert REPLACEMENT not in shown


def test_a_character_is_shown_with_the_token_that_completes_it() -> None:
    texts, rest = pushed(BYTE_LEVEL, byte_ids(BYTE_LEVEL, "你a👍".encode()))
    assert texts == ["", "", "你", "a", "", "", "", "👍"]
    assert rest == ""


def test_merged_tokens_that_span_characters_are_shown_character_by_character() -> None:
    # A token with the last two bytes of a character and the first of the next: no push ends clean.
    end, begin = "你".encode()[1:], "你".encode()[:1]
    letters = [byte_letter(byte) for byte in end + begin]
    merges = ((letters[0], letters[1]), (letters[0] + letters[1], letters[2]))
    tokenizer = byte_level_tokenizer(merges)
    spanning = id_of(tokenizer, "".join(letters))
    texts, rest = pushed(tokenizer, [*byte_ids(tokenizer, begin), *[spanning] * 20])
    assert texts == ["", *["你"] * 20]
    assert rest == ""


@given(data=st.binary(max_size=40))
def test_byte_level_text_is_what_utf8_decoding_says_but_for_a_broken_end(data: bytes) -> None:
    expected = data.decode(errors="replace")
    text = detokenized(BYTE_LEVEL, byte_ids(BYTE_LEVEL, data))
    # How many marks stand for a run of bad bytes is left open by the Unicode standard.
    text, expected = (re.sub(f"{REPLACEMENT}+", REPLACEMENT, one) for one in (text, expected))
    assert text.rstrip(REPLACEMENT) == expected.rstrip(REPLACEMENT)


@given(token_ids=st.lists(st.integers(0, SENTENCEPIECE.get_vocab_size() - 1), max_size=30))
def test_any_tokens_at_all_never_raise(token_ids: list[int]) -> None:
    detokenized(SENTENCEPIECE, token_ids)


@given(text=st.text(max_size=60))
@example(text="a\u2581b")
@pytest.mark.parametrize("name", TOKENIZERS)
def test_random_text_comes_back_whole(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    expected = text.replace("\u2581", " ") if name == "sentencepiece" else text  # its mark of one
    # U+FFFD at the very end cannot be told from half a character
    assert detokenized(tokenizer, tokenizer.encode(text).ids) == expected.rstrip(REPLACEMENT)


@pytest.mark.parametrize("bad", [b"\x80", b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5"])
def test_bytes_that_are_no_character_do_not_hold_up_the_stream(
    tokenizer: Tokenizer, bad: bytes
) -> None:
    texts, _ = pushed(tokenizer, byte_ids(tokenizer, bad * 10))
    assert sum(map(len, texts)) >= len(bad) * 10 - 3
    assert set("".join(texts)) == {REPLACEMENT}


def test_what_follows_bad_bytes_is_shown(tokenizer: Tokenizer) -> None:
    for num_bad in range(1, 8):
        ids = byte_ids(tokenizer, b"\x80" * num_bad + "你好".encode())
        assert detokenized(tokenizer, ids) == REPLACEMENT * num_bad + "你好"


def test_bad_bytes_do_not_change_the_text_before_them(tokenizer: Tokenizer) -> None:
    ids = byte_ids(tokenizer, "你".encode() + b"\x80" + b"ok")
    texts, rest = pushed(tokenizer, ids)
    assert "".join(texts) + rest == f"你{REPLACEMENT}ok"
    if tokenizer is SENTENCEPIECE:  # a word ends the run of bytes that is decoded as one
        ids = [*byte_ids(tokenizer, "你".encode() + b"\x80"), id_of(tokenizer, "a")]
        assert detokenized(tokenizer, ids) == f"你{REPLACEMENT}a"


@pytest.mark.parametrize("num_bytes", [1, 2, 3])
def test_flush_drops_half_a_character(tokenizer: Tokenizer, num_bytes: int) -> None:
    ids = byte_ids(tokenizer, b"ok" + "👍".encode()[:num_bytes])
    assert detokenized(tokenizer, ids) == "ok"


def test_flush_keeps_a_whole_character_behind_a_bad_byte(tokenizer: Tokenizer) -> None:
    ids = byte_ids(tokenizer, b"\x80" + "é".encode())
    assert detokenized(tokenizer, ids) == f"{REPLACEMENT}é"


def test_flush_of_nothing_is_empty(tokenizer: Tokenizer) -> None:
    assert Detokenizer(tokenizer).flush() == ""


def test_special_tokens_have_no_text(tokenizer: Tokenizer) -> None:
    special = id_of(tokenizer, BOS)
    hello = tokenizer.encode("hello").ids
    assert detokenized(tokenizer, [special, *hello, special, special]) == "hello"


def test_a_special_token_between_words_does_not_take_the_space() -> None:
    special, hello, world = (id_of(SENTENCEPIECE, word) for word in (BOS, "▁hello", "▁world"))
    for ids in ([hello, special, world], [special, hello, special, special, world]):
        assert detokenized(SENTENCEPIECE, ids) == "hello world"


def test_the_space_that_sentencepiece_puts_before_a_text_is_not_shown_but_others_are() -> None:
    space, hello = (id_of(SENTENCEPIECE, word) for word in ("▁", "▁hello"))
    assert detokenized(SENTENCEPIECE, [space, hello]) == " hello"
    assert detokenized(SENTENCEPIECE, [hello, space, space, hello]) == "hello   hello"


def test_an_end_of_turn_in_mid_character_does_not_break_it() -> None:
    ids = byte_ids(BYTE_LEVEL, "你".encode())
    ids.insert(2, id_of(BYTE_LEVEL, END_OF_TURN))
    assert detokenized(BYTE_LEVEL, ids) == "你"


def test_the_window_stays_small_however_long_the_text() -> None:
    class Recording:
        longest = 0

        def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
            self.longest = max(self.longest, len(ids))
            return str(BYTE_LEVEL.decode(ids, skip_special_tokens=skip_special_tokens))

    decoder = Recording()
    detokenizer = Detokenizer(decoder)
    for token_id in byte_ids(BYTE_LEVEL, ("你好👍" * 200).encode() + b"\x80" * 200):
        detokenizer.push(token_id)
    assert decoder.longest <= 8
