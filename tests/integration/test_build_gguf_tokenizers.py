"""What we make of the vocabularies in GGUF files, held to llama.cpp's own tokenizer."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path

import pytest
import regex
from gguf import TokenType
from tokenizers import Tokenizer, pre_tokenizers

from build_engines.artefacts.artefact import SpecialTokens
from build_engines.tokenizers.cuts import CUTS
from build_engines.tokenizers.huggingface import CHATGLM3_SPECIAL_TOKENS
from build_engines.tokenizers.write import write_tokenizer
from tests.integration.build_llama_vocab import LlamaVocab
from tests.integration.build_vocabularies import (
    BOS,
    END_OF_TURN,
    EOS,
    byte_level_vocabulary,
    write_byte_level_gguf,
    write_gguf,
    write_sentencepiece,
    write_sentencepiece_gguf,
)
from tests.integration.tokenizer_texts import mixed_texts

# The models tell capitals from small letters in every script, llama.cpp only in Latin.
CASED = {"gpt-4o", "llama4", "kanana2", "minimax-m2", "tekken"}
COMPOSING = {"qwen2", "qwen35"}  # the models' normalizer, which llama.cpp leaves out
# Source: o200k_base in tiktoken_ext/openai_public.py.
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
O200K_PATTERN = "|".join(
    [
        rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
SPECIAL = [BOS, EOS, END_OF_TURN, "<tool>"]


def convert(path: Path, chat_template: str | None = None) -> tuple[Tokenizer, SpecialTokens]:
    directory = path.with_suffix("")
    tokens = write_tokenizer(path, directory, max_seq_len=64, chat_template=chat_template)
    return Tokenizer.from_file(str(directory / "tokenizer.json")), tokens


def differences(
    tokenizer: Tokenizer, reference: LlamaVocab, texts: Iterable[str]
) -> list[tuple[str, list[int], list[int]]]:
    pairs = ((text, ids_of(tokenizer, text), reference.encode(text)) for text in texts)
    return [pair for pair in pairs if pair[1] != pair[2]]


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def texts_for(cut: str, count: int = 150) -> list[str]:
    texts = [*mixed_texts(count), *("".join(SPECIAL).join(("a", " b", "\n"))[:50] for _ in "x")]
    if cut in COMPOSING:
        return [unicodedata.normalize("NFC", text) for text in texts]
    if cut in CASED:
        return [text for text in texts if all(is_plain(character) for character in text)]
    if cut in ("deepseek-llm", "deepseek-coder"):  # llama.cpp takes all white space for one kind
        return [text for text in texts if not any(c.isspace() and c > "~" for c in text)]
    return texts


def is_plain(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] != "M" and (category not in ("Lu", "Ll") or character.isascii())


@pytest.mark.parametrize("cut", CUTS)
def test_byte_level_bpe_cuts_as_llama_cpp_does(tmp_path: Path, cut: str) -> None:
    path = write_byte_level_gguf(tmp_path / "vocabulary.gguf", cut)
    tokenizer, _ = convert(path)
    texts = texts_for(cut)
    assert len(texts) > 50
    assert differences(tokenizer, LlamaVocab(path), texts) == []
    if cut not in COMPOSING:
        for text in texts:
            assert tokenizer.decode(ids_of(tokenizer, text), skip_special_tokens=False) == text


def test_files_of_2023_are_cut_as_their_architecture_is(tmp_path: Path) -> None:
    old = write_byte_level_gguf(tmp_path / "old.gguf", None, architecture="qwen")
    new = write_byte_level_gguf(tmp_path / "new.gguf", "qwen2", architecture="qwen")
    (tokenizer, _), (expected, _) = convert(old), convert(new)
    assert differences(tokenizer, LlamaVocab(new), texts_for("qwen2")) == []
    assert tokenizer.to_str() == expected.to_str()


@pytest.fixture(scope="module", params=[True, False], ids=["llama", "gemma"])
def sentencepiece_gguf(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """As Llama 2 and Mistral have it, and Gemma: without the first space, with tokens for runs."""
    folder = tmp_path_factory.mktemp("sentencepiece")
    reader = write_sentencepiece(folder / "tokenizer.model")
    flags = {"add_space_prefix": bool(request.param)}
    symbols = [] if request.param else ["  ", "   ", "\n\n", "\n\n\n", "<b>"]
    more = dict.fromkeys(symbols, TokenType.USER_DEFINED)
    return write_sentencepiece_gguf(folder / "vocabulary.gguf", reader, more=more, flags=flags)


def test_sentencepiece_equals_llama_cpp(sentencepiece_gguf: Path) -> None:
    tokenizer, tokens = convert(sentencepiece_gguf)
    texts = [*mixed_texts(1500), f"{BOS}[INST] hi [/INST] yes {EOS}{BOS}[INST] 你好 [/INST]"]
    assert differences(tokenizer, LlamaVocab(sentencepiece_gguf), texts) == []
    assert (tokens.bos_id, tokens.eos_ids) == (1, [2])
    for text in texts:
        decoded = tokenizer.decode(ids_of(tokenizer, text), skip_special_tokens=False)
        assert decoded == text or BOS in text


def test_chatglm3_has_its_special_tokens_behind_the_pieces(tmp_path: Path) -> None:
    reader = write_sentencepiece(tmp_path / "tokenizer.model")
    first = reader.vocab_size()
    path = write_sentencepiece_gguf(
        tmp_path / "chatglm3.gguf",
        reader,
        architecture="chatglm",
        cut="chatglm-spm",
        more=dict.fromkeys(CHATGLM3_SPECIAL_TOKENS, TokenType.CONTROL),
        flags={"add_bos_token": False},
    )
    tokenizer, tokens = convert(path, chat_template="chatglm3")
    prompt = "[gMASK]sop<|system|>\n 简短<|user|>\n 你好 hi<|assistant|>\n yes<|observation|>\n {}"
    assert ids_of(tokenizer, prompt)[:3] == [first + 1, first + 3, first + 5]
    # llama.cpp finds "sop" in "philosophy", too
    texts = [prompt, *(text for text in mixed_texts(300) if "sop" not in text)]
    assert differences(tokenizer, LlamaVocab(path), texts) == []
    assert tokens.eos_ids == [2, first + 6, first + 8]


def test_phi_3_takes_white_space_behind_its_special_tokens(tmp_path: Path) -> None:
    symbols = ["<|end|>", "<|endoftext|>"]
    reader = write_sentencepiece(tmp_path / "tokenizer.model", user_defined_symbols=symbols)
    path = write_sentencepiece_gguf(tmp_path / "phi.gguf", reader, name="Phi-3 mini")
    tokenizer, _ = convert(path)
    texts = [f"a<|end|>{space}b <s> c</s>\n d" for space in ("", " ", "\n", "\n \n")]
    assert differences(tokenizer, LlamaVocab(path), texts) == []


def test_gemma_4_has_merges_of_sentencepiece(tmp_path: Path) -> None:
    merged = ["▁a", "bc", "▁abc", "\n\n", "你好"]
    letters = ["▁", "a", "b", "c", "\n", "你", "好", "é"]
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [*[TokenType.CONTROL] * 4, *[TokenType.BYTE] * 256]
    path = write_gguf(
        tmp_path / "gemma4.gguf",
        model="gemma4",
        architecture="gemma4",
        tokens=[*tokens, *letters, *merged],
        kinds=[*kinds, *[TokenType.NORMAL] * (len(letters) + len(merged))],
        scores=[0.0] * (len(tokens) + len(letters) + len(merged)),
        merges=[("▁", "a"), ("b", "c"), ("▁a", "bc"), ("\n", "\n"), ("你", "好")],
        ids={"bos": 2, "eos": 1, "unknown": 3},
    )
    tokenizer, tokens_found = convert(path)
    texts = ["abc abc", " abc\n\n\nabc", "你好！é", "x <bos>abc<eos>", "  a  "]
    assert differences(tokenizer, LlamaVocab(path), texts) == []
    assert [tokenizer.decode(ids_of(tokenizer, text), False) for text in texts] == texts
    assert tokens_found.eos_ids == [1]


def test_names_of_special_tokens_within_words_are_words(tmp_path: Path) -> None:
    vocabulary, merges = byte_level_vocabulary()
    tokens = [*sorted(vocabulary, key=lambda token: vocabulary[token]), "eop"]
    path = write_gguf(
        tmp_path / "glm.gguf",
        model="gpt2",
        cut="glm4",
        tokens=tokens,
        kinds=[*[TokenType.NORMAL] * len(vocabulary), TokenType.CONTROL],
        merges=merges,
    )
    tokenizer, _ = convert(path)
    eop = len(vocabulary)
    assert eop not in ids_of(tokenizer, "people 这eop是")
    assert ids_of(tokenizer, "]eop<").count(eop) == 1


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, "a"),
        ({"add_bos_token": True}, "<s>a"),
        ({"add_bos_token": True, "add_eos_token": True}, "<s>a</s>"),
    ],
)
def test_a_bare_text_is_surrounded_as_the_file_says(
    tmp_path: Path, flags: dict[str, bool], expected: str
) -> None:
    path = write_byte_level_gguf(tmp_path / "vocabulary.gguf", "qwen2", flags=flags)
    tokenizer, _ = convert(path)
    ids = tokenizer.encode("a").ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == expected
    assert ids == LlamaVocab(path).encode("a", add_special=True)


@pytest.mark.parametrize(
    ("flags", "template", "expected"),
    [
        ({"add_bos_token": True}, "{{ messages }}", "{{ bos_token }}{{ messages }}"),
        ({"add_bos_token": True}, "{{ bos_token + messages }}", "{{ bos_token + messages }}"),
        ({"add_bos_token": True}, "<s>{{ messages }}", "<s>{{ messages }}"),
        ({"add_bos_token": False}, "{{ messages }}", "{{ messages }}"),
    ],
)
def test_a_prompt_begins_as_the_file_says_and_once_only(
    tmp_path: Path, flags: dict[str, bool], template: str, expected: str
) -> None:
    path = write_byte_level_gguf(
        tmp_path / "vocabulary.gguf", "llama-bpe", flags=flags, template=template
    )
    convert(path)
    written = (tmp_path / "vocabulary" / "chat_template.jinja").read_text()
    assert written == expected


def test_the_ends_of_turns_end_an_answer_as_in_llama_cpp(tmp_path: Path) -> None:
    path = write_byte_level_gguf(tmp_path / "vocabulary.gguf", "qwen2")
    tokenizer, tokens = convert(path)
    assert [tokenizer.id_to_token(index) for index in tokens.eos_ids] == [EOS, END_OF_TURN]
    reference = LlamaVocab(path)
    assert all(reference.ends_generation(index) for index in tokens.eos_ids)


def test_gpt_oss_cuts_as_tiktoken_does(tmp_path: Path) -> None:
    path = write_byte_level_gguf(tmp_path / "vocabulary.gguf", "gpt-4o")
    tokenizer, _ = convert(path)
    splits = tokenizer.pre_tokenizer
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in mixed_texts(1000):
        words = regex.findall(O200K_PATTERN, text)
        expected = [letters.pre_tokenize_str(word)[0][0] for word in words]
        assert [word for word, _ in splits.pre_tokenize_str(text)] == expected
