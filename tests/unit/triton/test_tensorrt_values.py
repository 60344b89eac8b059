"""config.pbtxt of the C++ backend says what the engine can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from build_engines.artefacts.artefact import (
    SCHEMA_VERSION,
    Adapter,
    Artefact,
    DraftingFacts,
    EngineFacts,
    Limits,
    Manifest,
    SpecialTokens,
)
from frontend.settings import load_settings
from frontend.triton.folders import write_model_folder


def config_of(
    home: Path, engine: EngineFacts | None, adapters: dict[str, Adapter] | None = None
) -> Any:
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name="tiny",
        variant="fp16",
        kind="tensorrt_llm",
        format="tensorrt_engine",
        quantization="fp16",
        source={},
        tools={},
        files={},
        size_bytes=0,
        limits=Limits(max_seq_len=4096, max_input_len=4095, vocab_size=32000),
        tokens=SpecialTokens(bos_id=1, eos_ids=[2], pad_id=0),
        created="2026-01-01T00:00:00+00:00",
        memory_bytes=None,
        engine=engine,
        adapters=adapters or {},
    )
    artefact = Artefact(manifest=manifest, path=home / "engine's", content_hash="")
    folder = write_model_folder(load_settings({"home": home}), artefact)
    text = (folder / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def parameters_of(home: Path, **facts: Any) -> dict[str, str]:
    config = config_of(home, EngineFacts(**facts))
    return {name: value.string_value for name, value in config.parameters.items()}


def test_places_and_limits_are_the_engines(tmp_path: Path) -> None:
    config = config_of(tmp_path, EngineFacts(max_batch_size=24, max_beam_width=4))
    found = {name: value.string_value for name, value in config.parameters.items()}
    assert config.max_batch_size == 24
    assert list(config.dynamic_batching.preferred_batch_size) == [24]
    assert found["max_beam_width"] == "4"
    root = tmp_path / "engine's"
    assert found["gpt_model_path"] == str(root / "engine")
    assert found["tokenizer_dir"] == str(root / "tokenizer")
    assert found["xgrammar_tokenizer_info_path"] == str(root / "xgrammar_tokenizer_info.json")
    assert found["max_seq_len"] == "4096"


def test_an_engine_without_facts_keeps_the_defaults(tmp_path: Path) -> None:
    config = config_of(tmp_path, None)
    assert config.max_batch_size == 64
    assert config.parameters["enable_chunked_context"].string_value == "true"
    assert config.parameters["decoding_mode"].string_value == ""


def test_what_the_kernels_cannot_do_is_off(tmp_path: Path) -> None:
    found = parameters_of(tmp_path, has_chunked_context=False, has_kv_reuse=False)
    assert found["enable_chunked_context"] == "false"
    assert found["enable_kv_cache_reuse"] == "false"


def test_windows_are_a_list(tmp_path: Path) -> None:
    found = parameters_of(tmp_path, attention_windows=[512, 512, 4096])
    assert found["max_attention_window_size"] == "512,512,4096"


def test_the_lora_cache_holds_the_largest_adapter(tmp_path: Path) -> None:
    adapters = {"a": Adapter(directory="lora/a", rank=4, task_id=1)}
    config = config_of(tmp_path, EngineFacts(max_lora_rank=32), adapters)
    assert config.parameters["lora_cache_max_adapter_size"].string_value == "32"
    assert config.parameters["lora_cache_optimal_adapter_size"].string_value == "4"
    assert parameters_of(tmp_path, max_lora_rank=32)["lora_cache_optimal_adapter_size"] == "8"
    assert parameters_of(tmp_path)["lora_cache_max_adapter_size"] == ""


def test_how_tokens_are_guessed(tmp_path: Path) -> None:
    def drafting(mode: str, **facts: Any) -> dict[str, str]:
        return parameters_of(tmp_path, drafting=DraftingFacts(mode=mode, max_draft_len=9, **facts))

    eagle = drafting("eagle", tree=[[0], [0, 1], [2]])
    assert (eagle["decoding_mode"], eagle["eagle_choices"]) == ("eagle", "{0}, {0, 1}, {2}")
    assert eagle["medusa_choices"] == ""
    assert drafting("medusa", tree=[[0, 0]])["medusa_choices"] == "{0, 0}"
    lookahead = drafting("lookahead", lookahead=[7, 6, 5])
    assert lookahead["decoding_mode"] == "lookahead"
    assert (lookahead["lookahead_window_size"], lookahead["lookahead_ngram_size"]) == ("7", "6")
    assert lookahead["lookahead_verification_set_size"] == "5"
    assert drafting("draft_target")["decoding_mode"] == ""
