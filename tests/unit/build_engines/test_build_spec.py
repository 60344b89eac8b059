from __future__ import annotations

from pathlib import Path

import pytest

from build_engines.errors import SpecError
from build_engines.spec import PathSource, buildable_variants, load_spec, read_spec, spec_names

GOOD = (
    Path(load_spec.__code__.co_filename).parent / "specs/smollm2-135m-instruct.toml"
).read_text()


def write_spec(directory: Path, text: str, name: str = "smollm2-135m-instruct") -> Path:
    path = directory / f"{name}.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", spec_names())
def test_every_spec_that_is_shipped_is_valid(name: str) -> None:
    spec = load_spec(name)
    assert spec.name == name
    assert spec.default_variant in spec.variants
    assert buildable_variants(name) == list(spec.variants)


def test_the_default_model_ends_an_answer_at_im_end() -> None:
    spec = load_spec("smollm2-135m-instruct")
    assert (spec.tokens.eos_ids, spec.tokens.bos_id) == ([2, 0], 1)
    assert (spec.default_variant, spec.max_seq_len) == ("q8_0", 8192)


def test_an_unknown_model_names_the_models_there_are() -> None:
    with pytest.raises(
        SpecError, match=r"no model gpt-5: choose one of all-minilm-l6-v2, .*smollm2-135m-instruct"
    ):
        load_spec("gpt-5")
    assert buildable_variants("gpt-5") == []
    assert buildable_variants("../specs/smollm2-135m-instruct") == []


def test_an_unknown_variant_names_the_variants_there_are() -> None:
    with pytest.raises(SpecError, match="no variant q3: choose one of f16, q8_0, q4_0"):
        load_spec("smollm2-135m-instruct").variant("q3")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("max_seq_len = 8192", "max_seq_len = 0", r"`int` >= 1 - at `max_seq_len`"),
        ("max_seq_len = 8192", 'max_seq_len = "8k"', r"got `str` - at `max_seq_len`"),
        ("max_seq_len = 8192", "max_seqlen = 8192", "max_seq"),
        ('sha256 = "b', 'sha256 = "x', r"at `source.sha256`"),
        ("eos_ids = [2, 0]", "eos_ids = []", "tokens.eos_ids is empty"),
        ("eos_ids = [2, 0]", 'eos_ids = ["a"]', r"at `tokens.eos_ids\[0\]`"),
        *(
            ("pad_id = 2", f"pad_id = 2\nfill_in_middle = '{form}'", "tokens.fill_in_middle must")
            for form in ("<pre>{prefix}", "{prefix}{suffix}{}", "{prefix}{suffix}{", "{a}{suffix}")
        ),
        ('default_variant = "q8_0"', 'default_variant = "q1"', "q1 is not among its variants"),
        ("[variants.f16]", '[variants."../f16"]', "cannot be the name of a model or a variant"),
        ("[source]", "[source", "not TOML"),
        ("package = ", 'path = "x"\npackage = ', "exactly one of hf, package and path"),
        ("package = ", "hf = ", "with hf has no sha256, version"),
        ("num_layers = 30", "layers = 30", r"\[architecture\] has no layers"),
        ("[variants.q8_0]", "[variants.best]", r"variants.best.quantization is missing"),
    ],
)
def test_a_bad_spec_is_refused_with_its_file_and_key(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in GOOD
    path = write_spec(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(SpecError, match=message) as caught:
        read_spec(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_spec_may_say_how_the_model_fills_in_the_middle(tmp_path: Path) -> None:
    form = "<PRE>{prefix}<SUF>{suffix}<MID>"
    text = GOOD.replace("pad_id = 2", f'pad_id = 2\nfill_in_middle = "{form}"')
    assert read_spec(write_spec(tmp_path, text)).tokens.fill_in_middle == form
    assert load_spec("smollm2-135m-instruct").tokens.fill_in_middle is None


def test_a_path_is_relative_to_the_spec_and_little_needs_to_be_said(tmp_path: Path) -> None:
    path = write_spec(tmp_path, 'name = "mine"\n[source]\npath = "weights/model"\n', "any")
    spec = read_spec(path)
    assert spec.source == PathSource(path=str(tmp_path / "weights" / "model"))
    assert (spec.family, spec.max_seq_len, spec.variants) == (None, None, {})
    assert (spec.variant("int4_awq").kind, spec.variant("gguf").kind) == (
        "tensorrt_llm",
        "llama_cpp",
    )


def test_a_missing_spec_file_is_an_error_of_the_spec(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="No such file"):
        read_spec(tmp_path / "none.toml")


def test_bytes_that_are_no_text_are_not_toml(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match="not TOML"):
        read_spec(path)
