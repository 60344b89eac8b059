"""An engine's config.json is read back: it is the truth about what was built."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from build_engines.errors import ConversionError
from build_engines.tensorrt.engine_config import EngineConfig, read_engine_config

# facts of TensorRT-LLM 1.x: what trtllm-build writes
CONFIG: dict[str, Any] = {
    "version": "1.2.1",
    "pretrained_config": {
        "architecture": "LlamaForCausalLM",
        "dtype": "float16",
        "vocab_size": 32000,
        "mapping": {"world_size": 4, "tp_size": 2, "pp_size": 2, "moe_ep_size": 1},
        "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"},
    },
    "build_config": {
        "max_input_len": 4095,
        "max_seq_len": 4096,
        "max_batch_size": 64,
        "max_beam_width": 1,
        "max_num_tokens": 8192,
        "max_draft_len": 83,
        "speculative_decoding_mode": 8,
        "lora_config": {"max_lora_rank": 16, "lora_target_modules": ["attn_q"]},
        "plugin_config": {"lora_plugin": "auto", "use_paged_context_fmha": True},
    },
}


def write_engine(folder: Path, config: Mapping[str, Any], ranks: int) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    for rank in range(ranks):
        (folder / f"rank{rank}.engine").write_bytes(b"engine")
    return folder


def test_the_current_form(tmp_path: Path) -> None:
    assert read_engine_config(write_engine(tmp_path / "e", CONFIG, 4)) == EngineConfig(
        version="1.2.1",
        architecture="LlamaForCausalLM",
        vocab_size=32000,
        max_batch_size=64,
        max_input_len=4095,
        max_seq_len=4096,
        max_num_tokens=8192,
        max_beam_width=1,
        tp_size=2,
        pp_size=2,
        ep_size=1,
        quant_algo="FP8",
        kv_cache_quant_algo="FP8",
        max_draft_len=83,
        speculative_decoding_mode="lookahead_decoding",
        has_paged_context=True,
        max_lora_rank=16,
        lora_target_modules=("attn_q",),
    )


def test_room_for_a_steps_guesses_is_no_requests(tmp_path: Path) -> None:
    found = read_engine_config(write_engine(tmp_path / "e", CONFIG, 4))
    whole, guessing = found.limits(0), found.limits(found.max_draft_len)
    assert (whole.max_seq_len, whole.max_input_len) == (found.max_seq_len, found.max_input_len)
    assert guessing.max_seq_len == found.max_seq_len - 83
    assert guessing.max_input_len == min(found.max_input_len, guessing.max_seq_len - 1)


def test_the_form_of_old_engines(tmp_path: Path) -> None:
    old = {
        "builder_config": {
            "name": "llama",
            "vocab_size": 32000,
            "max_input_len": 1024,
            "max_output_len": 512,
            "max_batch_size": 8,
            "tensor_parallel": 2,
        },
        "plugin_config": {"use_paged_context_fmha": False},
    }
    found = read_engine_config(write_engine(tmp_path / "e", old, 2))
    assert (found.max_seq_len, found.max_num_tokens, found.world_size) == (1536, 8192, 2)
    assert not found.has_paged_context


@pytest.mark.parametrize(
    ("written", "read"),
    [(1, None), (2, "draft_tokens_external"), (4, "medusa"), (32, "eagle"), ("EAGLE", "eagle"),
     (None, None)],
)  # fmt: skip
def test_a_mode_is_a_name_or_the_number_of_its_flag(
    tmp_path: Path, written: Any, read: str | None
) -> None:
    build = {**CONFIG["build_config"], "speculative_decoding_mode": written}
    found = read_engine_config(write_engine(tmp_path / "e", {**CONFIG, "build_config": build}, 4))
    assert found.speculative_decoding_mode == read


def test_without_the_plugin_there_is_no_lora(tmp_path: Path) -> None:
    build = {**CONFIG["build_config"], "plugin_config": {"lora_plugin": None}}
    found = read_engine_config(write_engine(tmp_path / "e", {**CONFIG, "build_config": build}, 4))
    assert (found.max_lora_rank, found.lora_target_modules) == (None, ())


def test_a_missing_rank_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"rank3.engine is missing .* 4 GPUs"):
        read_engine_config(write_engine(tmp_path / "e", CONFIG, 3))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"build_config": {}}', '{"build_config": 1}'])
def test_what_is_no_engine_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConversionError, match=r"config\.json"):
        read_engine_config(tmp_path)


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="not an engine's folder"):
        read_engine_config(tmp_path)
