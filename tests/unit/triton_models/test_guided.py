"""Grammars by llguidance over a small tokenizer of single bytes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from triton_models.errors import InvalidArgumentError
from triton_models.guided import GuideCompiler
from triton_models.request import Guide

END = "<end>"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END, special=True)])
    return tokenizer


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> GuideCompiler:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    end_id = tokenizer.token_to_id(END)
    assert end_id is not None
    return GuideCompiler(path, tokenizer.get_vocab_size(), [end_id])


def feed(guide: Guide, tokenizer: Tokenizer, text: str) -> bool:
    """Accepts all of `text`; false as soon as a token is not allowed."""
    for token_id in tokenizer.encode(text).ids:
        if not guide.allowed()[token_id]:
            return False
        guide.accept(token_id)
    return True


CASES = [
    ("json", "", '{"a": [1, null]}', "[1]"),
    (
        "json_schema",
        '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"],'
        ' "additionalProperties": false}',
        '{"n": 12}',
        '{"m"',
    ),
    ("regex", "[0-9]{3}-(yes|no)", "123-no", "12-"),
    ("ebnf_grammar", 'root ::= "a" root | "b"', "aaab", "ac"),
    ("ebnf_grammar", 'start: "x"+ "y"', "xxy", "y"),
]


@pytest.mark.parametrize(("guide_type", "guide", "good", "bad"), CASES)
def test_a_grammar_allows_its_texts_only(
    compiler: GuideCompiler,
    tokenizer: Tokenizer,
    guide_type: str,
    guide: str,
    good: str,
    bad: str,
) -> None:
    compiled = compiler.compile(guide_type, guide)
    assert not compiled.may_end()
    other = compiled.fork()
    assert feed(compiled, tokenizer, good)
    assert compiled.may_end()
    assert not feed(other, tokenizer, bad)


def test_end_tokens_are_never_among_the_allowed(
    compiler: GuideCompiler, tokenizer: Tokenizer
) -> None:
    guide = compiler.compile("regex", "a*")
    assert guide.may_end()
    assert not guide.allowed()[tokenizer.token_to_id(END)]


def test_nothing_is_allowed_after_a_complete_text(
    compiler: GuideCompiler, tokenizer: Tokenizer
) -> None:
    guide = compiler.compile("regex", "ab")
    feed(guide, tokenizer, "ab")
    assert guide.may_end()
    assert not guide.allowed().any()


def test_the_mask_has_the_size_of_the_vocabulary(
    compiler: GuideCompiler, tokenizer: Tokenizer
) -> None:
    allowed = compiler.compile("json", "").allowed()
    assert allowed.shape == (tokenizer.get_vocab_size(),)
    assert allowed.dtype == np.bool_


@pytest.mark.parametrize(
    ("guide_type", "guide"),
    [
        ("json_schema", "{"),
        ("json_schema", '{"type": "nonsense"}'),
        ("json_schema", "17"),
        ("regex", "[a"),
        ("ebnf_grammar", "start: nothing"),
        ("ebnf_grammar", "root ::= ("),
    ],
)
def test_a_bad_grammar_names_the_tensor(
    compiler: GuideCompiler, guide_type: str, guide: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^Invalid argument: guided_decoding_guide: "):
        compiler.compile(guide_type, guide)


def test_an_unknown_type_names_the_tensor_and_what_there_is(compiler: GuideCompiler) -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"^Invalid argument: guided_decoding_guide_type: .*ebnf_grammar"
    ):
        compiler.compile("structural_tag", "")


def test_a_schema_may_be_large(compiler: GuideCompiler, tokenizer: Tokenizer) -> None:
    schema = {
        "type": "object",
        "properties": {f"field{i}": {"type": "string"} for i in range(200)},
        "required": ["field7"],
    }
    guide = compiler.compile("json_schema", json.dumps(schema))
    assert feed(guide, tokenizer, '{"field7": "v"}')
