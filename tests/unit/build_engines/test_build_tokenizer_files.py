from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from gguf import GGUFWriter, TokenType
from tokenizers import Tokenizer

from build_engines.checkpoints.gguf_file import open_gguf
from build_engines.errors import ConversionError
from build_engines.tokenizers.write import write_tokenizer

TOKENS = ["<s>", "</s>", "<tool>", "a", "b", "Ġ", "ab"]
KINDS = [TokenType.CONTROL, TokenType.CONTROL, TokenType.USER_DEFINED, *[TokenType.NORMAL] * 4]


def write(
    directory: Path, *, family: str = "gpt2", cut: str = "smollm", template: str | None = None
) -> Path:
    writer = GGUFWriter(directory / "vocabulary.gguf", "llama")
    writer.add_tokenizer_model(family)
    writer.add_tokenizer_pre(cut)
    writer.add_token_list(TOKENS)
    writer.add_token_types(KINDS)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(1)
    if template is not None:
        writer.add_chat_template(template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    write_tokenizer(
        open_gguf(directory / "vocabulary.gguf"), directory / "tokenizer", max_seq_len=64
    )
    return directory / "tokenizer"


def test_control_tokens_are_special_and_user_defined_ones_only_whole(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(write(tmp_path) / "tokenizer.json"))
    ids = tokenizer.encode("<s>ab a<tool>b</s>").ids
    assert ids == [0, 6, 5, 3, 2, 4, 1]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ab a<tool>b"


def test_the_config_names_only_the_tokens_that_the_file_names(tmp_path: Path) -> None:
    config = orjson.loads((write(tmp_path) / "tokenizer_config.json").read_bytes())
    assert config == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 64,
        "clean_up_tokenization_spaces": False,
        "eos_token": "</s>",
    }


def test_the_chat_template_is_kept_byte_for_byte(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.content }}\r\n{% endfor %}中"
    path = write(tmp_path, template=template) / "chat_template.jinja"
    assert path.read_bytes().decode() == template


def test_a_base_model_has_no_chat_template(tmp_path: Path) -> None:
    assert not (write(tmp_path) / "chat_template.jinja").exists()


@pytest.mark.parametrize(("key", "value"), [("cut", "kimi-k2"), ("family", "t5")])
def test_a_tokenizer_of_another_family_is_refused_by_name(
    tmp_path: Path, key: str, value: str
) -> None:
    with pytest.raises(ConversionError, match=f"{value}.* is not supported"):
        write(tmp_path, **{key: value})
