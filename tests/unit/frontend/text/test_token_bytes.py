from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from frontend.text.token_bytes import TokenBytes
from tests.fakes.tokenizers import (
    BOS,
    END_OF_TURN,
    byte_letter,
    byte_level_tokenizer,
    id_of,
    sentencepiece_tokenizer,
    text_tokenizer,
)

TEXTS = ["hello world", "你好", "👩\u200d👧", "e\u0301 \u00a0\u0000\n\t"]


@pytest.mark.parametrize("text", TEXTS)
def test_the_bytes_of_byte_level_tokens_are_the_texts(text: str) -> None:
    merges = ((byte_letter(0xE4), byte_letter(0xBD)), ("h", "e"))
    tokenizer = byte_level_tokenizer(merges)
    token_bytes = TokenBytes(tokenizer)
    pieces = [token_bytes(token_id) for token_id in tokenizer.encode(text).ids]
    assert b"".join(pieces) == text.encode()


def test_a_part_of_a_character_has_its_own_bytes() -> None:
    tokenizer = byte_level_tokenizer(((byte_letter(0xE4), byte_letter(0xBD)),))
    token_bytes = TokenBytes(tokenizer)
    assert [token_bytes(i) for i in tokenizer.encode("你").ids] == [b"\xe4\xbd", b"\xa0"]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("hello world", [b" hello", b" world"]),
        ("ab", [b" ", b"a", b"b"]),
        ("é", [b" ", b"\xc3", b"\xa9"]),
    ],
)
def test_sentencepiece_shows_the_space_that_begins_a_text(text: str, pieces: list[bytes]) -> None:
    tokenizer = sentencepiece_tokenizer()
    token_bytes = TokenBytes(tokenizer)
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert [token_bytes(token_id) for token_id in ids] == pieces


@pytest.mark.parametrize("tokenizer", [byte_level_tokenizer(), sentencepiece_tokenizer()])
def test_special_tokens_are_their_own_text(tokenizer: Tokenizer) -> None:
    assert TokenBytes(tokenizer)(id_of(tokenizer, BOS)) == BOS.encode()


def test_added_pieces_of_spaces_are_spaces() -> None:
    tokenizer = sentencepiece_tokenizer()
    tokenizer.add_tokens([AddedToken("▁▁", normalized=False)])  # as in Gemma's tokenizer.json
    assert TokenBytes(tokenizer)(id_of(tokenizer, "▁▁")) == b"  "


def test_an_id_without_a_token_is_nothing() -> None:
    assert TokenBytes(byte_level_tokenizer())(100_000) == b""


def test_other_vocabularies_are_decoded() -> None:
    words = models.WordPiece({"[UNK]": 0, "hel": 1, "##lo": 2}, unk_token="[UNK]")
    tokenizer = Tokenizer(words)
    assert TokenBytes(tokenizer)(1) == b"hel"
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken("[CLS]", special=True)])
    assert TokenBytes(tokenizer)(id_of(tokenizer, "[CLS]")) == b"[CLS]"


def test_a_text_tokenizer_knows_them() -> None:
    tokenizer = text_tokenizer()
    token_id = id_of(byte_level_tokenizer(), END_OF_TURN)
    assert tokenizer.token_bytes(token_id) == END_OF_TURN.encode()


def test_a_word_is_looked_for_at_the_start_and_behind_a_space() -> None:
    tokenizer = text_tokenizer(byte_level_tokenizer((("b", "a"), ("ba", "d"))))
    bad, space = (id_of(byte_level_tokenizer((("b", "a"), ("ba", "d"))), w) for w in ("bad", "Ġ"))
    assert tokenizer.word_ids("bad") == [(bad,), (space, bad)]
