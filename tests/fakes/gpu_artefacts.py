"""Published models of the GPU kinds, for the stand-ins: all that an artefact has, but weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from build_engines.artefacts.artefact import (
    SCHEMA_VERSION,
    Adapter,
    Artefact,
    EngineFacts,
    Limits,
    Manifest,
    SpecialTokens,
    describe_files,
    publish,
)
from tests.fakes.tokenizers import END_OF_TURN, byte_level_tokenizer, id_of, write_tokenizer
from triton_models.llm_api.options import CHECKPOINT_DIR, OPTIONS_FILE

VOCAB_SIZE = 259  # of the byte-level tokenizer
END_ID = id_of(byte_level_tokenizer(), END_OF_TURN)
MAX_SEQ_LEN = 512
MAX_BATCH_SIZE = 64

LLM_OPTIONS: Mapping[str, Any] = {
    "backend": "pytorch",
    "max_batch_size": MAX_BATCH_SIZE,
    "max_num_tokens": 1024,
    "max_seq_len": MAX_SEQ_LEN,
    "kv_cache_config": {"free_gpu_memory_fraction": 0.9},
    "enable_chunked_prefill": True,
    "enable_iter_perf_stats": True,
    "guided_decoding_backend": "llguidance",
}


def publish_llm_api(
    home: Path,
    name: str,
    *,
    options: Mapping[str, Any] = LLM_OPTIONS,
    script: Mapping[str, Any] | None = None,
    adapters: tuple[str, ...] = (),
) -> Artefact:
    """Publish a model of kind llm_api. `script`: fake_llm.json of the stand-in's checkpoint."""
    built = home / "building" / name
    checkpoint = built / CHECKPOINT_DIR
    checkpoint.mkdir(parents=True)
    config = {"vocab_size": VOCAB_SIZE, "eos_token_id": END_ID}
    (checkpoint / "config.json").write_text(json.dumps(config))
    (checkpoint / "fake_llm.json").write_text(json.dumps(script or {}))
    (built / OPTIONS_FILE).write_text(json.dumps(options))
    for adapter in adapters:
        (built / "lora" / adapter).mkdir(parents=True)
        (built / "lora" / adapter / "adapter_config.json").write_text("{}")
    known = {
        adapter: Adapter(directory=f"lora/{adapter}", rank=8, task_id=2**63 + number)
        for number, adapter in enumerate(adapters)
    }
    return _publish(home, built, name, kind="llm_api", adapters=known)


def publish_tensorrt(
    home: Path,
    name: str,
    *,
    config: Mapping[str, Any],
    variant: str = "fp16",
    max_seq_len: int = MAX_SEQ_LEN,
    vocab_size: int = VOCAB_SIZE,
    engine: EngineFacts = EngineFacts(max_batch_size=MAX_BATCH_SIZE),  # noqa: B008, frozen
    adapters: Mapping[str, Adapter] | None = None,
) -> Artefact:
    """Publish a model of kind tensorrt_llm whose engine has this config.json and no weights."""
    built = home / "building" / name
    (built / "engine").mkdir(parents=True)
    (built / "engine" / "config.json").write_text(json.dumps(config))
    (built / "engine" / "rank0.engine").write_bytes(b"not an engine")
    tokenizer = byte_level_tokenizer()
    guide_info = {
        "encoded_vocab": [tokenizer.id_to_token(token_id) for token_id in range(VOCAB_SIZE)],
        "tokenizer_str": tokenizer.to_str(),
        "stop_token_ids": [END_ID],
    }
    (built / "xgrammar_tokenizer_info.json").write_text(json.dumps(guide_info))
    return _publish(
        home,
        built,
        name,
        kind="tensorrt_llm",
        variant=variant,
        max_seq_len=max_seq_len,
        vocab_size=vocab_size,
        engine=engine,
        adapters=dict(adapters or {}),
    )


def engine_config(**build_config: Any) -> dict[str, Any]:
    """config.json of an engine of TensorRT-LLM 1.2.1: the parts that are read."""
    return {
        "version": "1.2.1",
        "pretrained_config": {
            "architecture": "LlamaForCausalLM",
            "dtype": "float16",
            "vocab_size": VOCAB_SIZE,
            "mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1},
            "quantization": {"quant_algo": None, "kv_cache_quant_algo": None},
        },
        "build_config": {
            "max_input_len": MAX_SEQ_LEN - 1,
            "max_seq_len": MAX_SEQ_LEN,
            "max_batch_size": MAX_BATCH_SIZE,
            "max_beam_width": 1,
            "max_num_tokens": 1024,
            "lora_config": {"lora_target_modules": [], "max_lora_rank": 64},
            "plugin_config": {"lora_plugin": None, "use_paged_context_fmha": True},
        }
        | build_config,
    }


def _publish(
    home: Path,
    built: Path,
    name: str,
    *,
    kind: str,
    variant: str = "bf16",
    max_seq_len: int = MAX_SEQ_LEN,
    vocab_size: int = VOCAB_SIZE,
    engine: EngineFacts = EngineFacts(max_batch_size=MAX_BATCH_SIZE),  # noqa: B008, frozen
    adapters: dict[str, Adapter],
) -> Artefact:
    write_tokenizer(built / "tokenizer")
    files = describe_files(built)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        variant=variant,
        kind=kind,
        format=kind,
        quantization=variant,
        source={},
        tools={},
        files=files,
        size_bytes=sum(entry.size_bytes for entry in files.values()),
        limits=Limits(
            max_seq_len=max_seq_len, max_input_len=max_seq_len - 1, vocab_size=vocab_size
        ),
        tokens=SpecialTokens(bos_id=None, eos_ids=[END_ID], pad_id=None),
        created="2026-01-01T00:00:00+00:00",
        memory_bytes=None,
        engine=engine,
        adapters=adapters,
    )
    return publish(home, built, manifest)
