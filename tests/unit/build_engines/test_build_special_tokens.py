"""Which tokens begin and end a text: from the spec, the written tokenizer, the checkpoint."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from tokenizers import AddedToken, Tokenizer, models

from build_engines.artefacts.artefact import SpecialTokens
from build_engines.checkpoints.special_tokens import special_tokens
from build_engines.errors import SourceError
from build_engines.spec import TokenOptions
from build_engines.tokenizers.write import write_tokenizer
from frontend.text.tokenizer import TextTokenizer


def checkpoint_of(directory: Path, *tokens: str, **settings: object) -> Path:
    """A Hugging Face folder with only the small files; `settings` of tokenizer_config.json."""
    directory.mkdir()
    vocabulary = {token: index for index, token in enumerate(["a", *tokens])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in tokens])
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_bytes(orjson.dumps(settings))
    return directory


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["<eos>"], ["<eos>"]),
        (["<eos>", "<end_of_turn>"], ["<eos>", "<end_of_turn>"]),
        (["<eos>", "<|endoftext|>", "<|im_end|>"], ["<eos>", "<|im_end|>", "<|endoftext|>"]),
        (["<eos>", "<|user|>", "<|observation|>"], ["<eos>", "<|user|>", "<|observation|>"]),
        (["<eos>", "<|user|>", "<|end|>"], ["<eos>", "<|end|>"]),
        (["<eos>", "<|end|>", "<|return|>", "<|call|>"], ["<eos>", "<|return|>", "<|call|>"]),
        (["<eos>", "</s>"], ["<eos>"]),  # a tag of HTML in Gemma
    ],
    ids=["base", "Gemma", "Qwen", "GLM", "Phi-3", "gpt-oss", "HTML"],
)
def test_the_names_of_tokens_tell_what_ends_an_answer(
    tmp_path: Path, tokens: list[str], expected: list[str]
) -> None:
    source = checkpoint_of(tmp_path / "checkpoint", *tokens, eos_token="<eos>")
    found = write_tokenizer(source, tmp_path / "tokenizer", max_seq_len=8)
    assert found.eos_ids == [1 + tokens.index(name) for name in expected]


def test_the_written_tokenizer_says_what_the_spec_leaves_out(tmp_path: Path) -> None:
    source = checkpoint_of(
        tmp_path / "checkpoint", "<bos>", "<eos>", bos_token="<bos>", eos_token="<eos>"
    )
    written = write_tokenizer(source, tmp_path / "tokenizer", max_seq_len=8)
    assert written == SpecialTokens(bos_id=1, eos_ids=[2], pad_id=None)
    assert special_tokens(TokenOptions(), tmp_path / "tokenizer") == written
    named = special_tokens(TokenOptions(eos_ids=[9], pad_id=8), tmp_path / "tokenizer")
    assert named == SpecialTokens(bos_id=1, eos_ids=[9], pad_id=8)


def test_a_model_without_an_end_is_refused(tmp_path: Path) -> None:
    source = checkpoint_of(tmp_path / "checkpoint")
    write_tokenizer(source, tmp_path / "tokenizer", max_seq_len=8)
    with pytest.raises(SourceError, match="which token ends an answer"):
        special_tokens(TokenOptions(), tmp_path / "tokenizer")


def test_templates_of_several_names_stand_where_transformers_finds_them(tmp_path: Path) -> None:
    templates = [
        {"name": "default", "template": "{{ messages }}"},
        {"name": "tool_use", "template": "{{ tools }}"},
    ]
    source = checkpoint_of(
        tmp_path / "checkpoint", "<eos>", eos_token="<eos>", chat_template=templates
    )
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "rag.jinja").write_text("{{ documents }}")
    write_tokenizer(source, tmp_path / "tokenizer", max_seq_len=8)
    tokenizer = TextTokenizer(tmp_path / "tokenizer")
    assert tokenizer.render_chat([], tools=[{"a": 1}]) == "[{'a': 1}]"
    assert tokenizer.render_chat([]) == "[]"
    assert "{{ documents }}" in tokenizer.chat_template


def test_a_file_beside_wins_over_the_template_in_the_config(tmp_path: Path) -> None:
    source = checkpoint_of(tmp_path / "checkpoint", "<eos>", eos_token="<eos>", chat_template="old")
    (source / "chat_template.jinja").write_text("new")
    write_tokenizer(source, tmp_path / "tokenizer", max_seq_len=8)
    assert (tmp_path / "tokenizer" / "chat_template.jinja").read_text() == "new"


def test_the_template_that_a_spec_names_is_the_only_one(tmp_path: Path) -> None:
    source = checkpoint_of(
        tmp_path / "checkpoint",
        "<eos>",
        eos_token="<eos>",
        chat_template=[{"name": "tool_use", "template": "{{ tools }}"}],
    )
    write_tokenizer(source, tmp_path / "tokenizer", max_seq_len=8, chat_template="chatml")
    written = sorted(path.name for path in (tmp_path / "tokenizer").rglob("*.jinja"))
    assert written == ["chat_template.jinja"]
