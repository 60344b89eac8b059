from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from build_engines.errors import SourceError, SpecError
from build_engines.ordering import Request, name_of, order_for, order_of, parse_checkpoint
from build_engines.recipe import Order
from build_engines.spec import HubSource, PathSource, Source, Spec
from build_engines.tokenizers import templates
from build_engines.variants import VariantOptions
from tests.unit.build_engines.build_fakes import tiny_spec, write_checkpoint

HOME = Path("/home")


def ordered(tmp_path: Path, *, has_gpu: bool = False, **request: str | Path | None) -> Order:
    return order_of(Request(**request), tmp_path, has_gpu=lambda: has_gpu)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("owner/name", HubSource(hf="owner/name")),
        ("owner/na.me-1_x@v1.0", HubSource(hf="owner/na.me-1_x", revision="v1.0")),
        ("owner/name/a.Q4_0.gguf", HubSource(hf="owner/name", file="a.Q4_0.gguf")),
        ("o/n/sub/a.gguf@abc", HubSource(hf="o/n", revision="abc", file="sub/a.gguf")),
    ],
)
def test_a_hugging_face_id_is_understood(text: str, source: Source) -> None:
    assert parse_checkpoint(text) == source


@pytest.mark.parametrize(
    "text", ["./x", "/no/where", "~/none", "models/x.gguf", "x.gguf", "name", "a b/c", ""]
)
def test_a_path_that_is_not_there_is_no_id(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: False)
    with pytest.raises(SourceError, match=f"there is no checkpoint {text}: give a folder"):
        parse_checkpoint(text)


def test_what_is_there_is_taken_for_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert parse_checkpoint("owner/name") == PathSource(path=str(tmp_path / "owner" / "name"))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (PathSource(path="/m/llama-2-7b-chat.Q4_0.gguf"), "llama-2-7b-chat"),
        (PathSource(path="/m/Qwen2.5-0.5B-Instruct-Q5_K_M.gguf"), "qwen2.5-0.5b-instruct"),
        (PathSource(path="/m/gemma-2b.IQ4_XS.gguf"), "gemma-2b"),
        (PathSource(path="/m/x.bf16.gguf"), "x"),
        (PathSource(path="/m/Big-70B-Q4_K_M-00001-of-00002.gguf"), "big-70b"),
        (PathSource(path="/m/big-00001-of-00002.gguf"), "big"),
        (PathSource(path="/m/My Model (new)"), "my-model-new"),
        (HubSource(hf="owner/Name-7B"), "name-7b"),
        (HubSource(hf="owner/Name-GGUF", file="sub/Name-7B.Q8_0.gguf"), "name-7b"),
    ],
)
def test_a_checkpoint_names_its_model(source: Source, name: str) -> None:
    assert name_of(source) == name


def test_a_gguf_file_is_served_as_it_is_unless_a_variant_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "smollm2-135m-instruct.Q4_0.gguf"
    path.write_bytes(b"")
    order = ordered(tmp_path, checkpoint=str(path))
    assert (order.spec.name, order.spec.family) == ("smollm2-135m-instruct", "llama")  # the spec's
    assert (order.variant.name, order.variant.kind) == ("gguf", "llama_cpp")
    assert ordered(tmp_path, checkpoint=str(path), variant="q4_0").variant.kind == "cpu"
    assert ordered(tmp_path, model="smollm2-135m-instruct").variant.name == "q8_0"


def test_a_hugging_face_checkpoint_without_a_variant_is_built_for_this_machine(
    tmp_path: Path,
) -> None:
    checkpoint = str(write_checkpoint(tmp_path / "model"))
    assert ordered(tmp_path, checkpoint=checkpoint).variant.recipe == "optimum"
    assert ordered(tmp_path, checkpoint=checkpoint, has_gpu=True).variant.kind == "tensorrt_llm"


def test_a_familys_implicit_variants_are_of_the_kind_that_it_has(tmp_path: Path) -> None:
    spec = replace(tiny_spec(tmp_path / "model"), family="gpt_oss")
    assert order_for(spec, "bf16", tmp_path).variant.kind == "llm_api"
    assert order_for(replace(spec, family="llama"), "bf16", tmp_path).variant.kind == "tensorrt_llm"
    with pytest.raises(SpecError, match="there is no family warp: choose one of "):
        order_for(replace(spec, family="warp"), "bf16", tmp_path)


def test_the_key_is_of_what_was_asked_for(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "model")
    order = ordered(tmp_path, checkpoint=str(checkpoint), variant="q8_0")
    assert order.key == ordered(tmp_path, checkpoint=str(checkpoint), variant="q8_0").key
    assert order.key != ordered(tmp_path, checkpoint=str(checkpoint), variant="f16").key
    (checkpoint / "config.json").write_text("{ }")
    assert order.key != ordered(tmp_path, checkpoint=str(checkpoint), variant="q8_0").key


def key_of(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\n' + text)
    return ordered(tmp_path, spec_file=path, variant="fp16").key


def test_the_key_is_of_the_spec_as_far_as_the_variant_is_built_from_it(tmp_path: Path) -> None:
    source = '[source]\nhf = "o/n"\n'
    key = key_of(tmp_path, source)
    other_variant = "[variants.fp16]\n[variants.bf16]\ntp_size = 2\n"
    assert key_of(tmp_path, source + other_variant) == key
    for changed in (
        source.replace("o/n", "o/m"),
        f"max_seq_len = 64\n{source}",
        f'tool_parser = "hermes"\n{source}',
        f"{source}[tokens]\neos_ids = [2]\n",
        f"{source}[tokens]\npad_id = 0\n",
        f"{source}[limits]\nmax_batch_size = 2\n",
        f"{source}[variants.fp16]\ntp_size = 2\n",
    ):
        assert key_of(tmp_path, changed) != key, changed


def test_the_key_is_of_the_chat_templates_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.jinja").write_text("first")
    monkeypatch.setattr(templates, "TEMPLATES_DIR", tmp_path)
    text = 'chat_template = "mine"\n[source]\nhf = "o/n"\n'
    key = key_of(tmp_path, text)
    assert key_of(tmp_path, text) == key
    (tmp_path / "mine.jinja").write_text("second")
    assert key_of(tmp_path, text) != key


def test_a_variant_inherits_what_the_spec_says_and_overrides_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\nfamily = "llama"\nmax_seq_len = 4096\n[source]\nhf = "o/n"\n'
        "[limits]\nmax_batch_size = 8\nmax_input_len = 1000\n"
        '[lora]\nmax_rank = 16\n[lora.adapters]\nlaw = "o/law"\n'
        '[speculative]\nmode = "lookahead"\nwindow_size = 4\n'
        "[variants.fp16]\n"
        '[variants.small]\nquantization = "int4_awq"\nkv_cache = "fp8"\ntp_size = 2\n'
        "max_seq_len = 2048\n[variants.small.limits]\nmax_batch_size = 2\n"
        '[variants.small.lora]\nmax_rank = 8\n[variants.small.lora.adapters]\nmed = "/med"\n'
    )
    plain = ordered(tmp_path, spec_file=path).variant
    assert (plain.name, plain.limits.max_batch_size, plain.kv_cache) == ("fp16", 8, "auto")
    assert plain.lora is not None
    assert (plain.lora.max_rank, plain.lora.adapters) == (16, {"law": "o/law"})
    assert plain.speculative is not None
    assert plain.speculative.window_size == 4

    order = ordered(tmp_path, spec_file=path, variant="small")
    small = order.variant
    assert (small.quantization, small.kind, small.world_size) == ("int4_awq", "tensorrt_llm", 2)
    assert (small.limits.max_batch_size, small.limits.max_input_len) == (2, 1000)
    assert small.lora is not None
    assert (small.lora.max_rank, small.lora.adapters) == (8, {"law": "o/law", "med": "/med"})
    assert (order.max_seq_len, ordered(tmp_path, spec_file=path).max_seq_len) == (2048, 4096)


def test_a_variant_that_is_no_quantization_is_refused(tmp_path: Path) -> None:
    spec = Spec(name="x", source=HubSource(hf="o/n"), variants={"fp16": VariantOptions()})
    with pytest.raises(SpecError, match="x has no variant best: choose one of fp16"):
        order_for(spec, "best", tmp_path)
