from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from build_engines.errors import SpecError
from build_engines.spec import (
    PathSource,
    ReasoningParser,
    ToolParser,
    buildable_variants,
    load_spec,
    read_spec,
    spec_names,
)
from frontend.text.reasoning import REASONING_PARSERS
from frontend.text.tool_parsers.registry import TOOL_PARSERS

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


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(f'name = "mine"\n{text}')
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[variants.gguf]\ntp_size = 2\nkv_cache = "fp8"\n',
            "variants.gguf is of kind llama_cpp, which has no kv_cache, tp_size",
        ),
        ("[variants.q8_0.limits]\nmax_batch_size = 2\n", "is of kind cpu, which has no limits"),
        (
            '[variants.x]\nkind = "llama_cpp"\nquantization = "q4_0"\n',
            "kind llama_cpp, which serves a GGUF file as it is: leave quantization q4_0 out",
        ),
        (
            '[variants.x]\nkind = "tensorrt_llm"\nquantization = "fp16"\n'
            'sampler_type = "TRTLLMSampler"\n',
            "kind tensorrt_llm, which has no sampler_type: leave out .* or choose kind llm_api",
        ),
        (
            '[speculative]\nmode = "lookahead"\nnum_heads = 2\n[variants.fp16]\n',
            "speculative.num_heads is not of mode lookahead, which has max_draft_len, window_size",
        ),
        ('tool_parser = "magic"\n', "Invalid enum value 'magic' - at `tool_parser`"),
        ("[tokens]\neos_ids = [-1]\n", r"Expected `int` >= 0 - at `tokens.eos_ids\[0\]`"),
        (
            'kind = "embedding"\nchat_template = "qwen"\n'
            "[verify]\ntexts = []\nvalues = []\ncosines = []\n[limits]\nmax_batch_size = 2\n",
            "an embedding model has no chat_template, limits: leave it out",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        read_spec(written(tmp_path, text))


def test_a_specs_own_tables_are_for_its_variants_on_gpus(tmp_path: Path) -> None:
    spec = read_spec(
        written(
            tmp_path,
            '[limits]\nmax_batch_size = 2\n[lora]\nmax_rank = 8\n[speculative]\nmode = "eagle"\n'
            "[variants.gguf]\n[variants.fp16]\n",
        )
    )
    on_cpu, on_gpu = spec.variant("gguf"), spec.variant("fp16")
    assert (on_cpu.limits.max_batch_size, on_cpu.lora, on_cpu.speculative) == (None, None, None)
    assert on_gpu.limits.max_batch_size == 2
    assert on_gpu.lora is not None
    assert on_gpu.speculative is not None


def test_the_parsers_are_those_of_the_frontend() -> None:
    assert set(get_args(ToolParser)) == set(TOOL_PARSERS)
    assert set(get_args(ReasoningParser)) == set(REASONING_PARSERS)
