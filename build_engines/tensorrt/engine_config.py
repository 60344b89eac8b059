"""Reads an engine's config.json back: the truth about what was built, whatever was asked for.

Its keys are those of TensorRT-LLM 1.x (`pretrained_config`, `build_config`); engines of 0.7 and
before have `builder_config` instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from build_engines.artefacts.manifest import Limits
from build_engines.errors import ConversionError

CONFIG_NAME = "config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """What an engine can do. Lengths are tokens."""

    version: str  # of TensorRT-LLM, which alone can load it; "" in engines that do not say
    architecture: str
    vocab_size: int
    max_batch_size: int
    max_input_len: int
    max_seq_len: int
    max_num_tokens: int
    max_beam_width: int
    tp_size: int
    pp_size: int
    ep_size: int
    quant_algo: str | None
    kv_cache_quant_algo: str | None
    max_draft_len: int
    speculative_decoding_mode: str | None  # as trtllm-build names it; None: it does not guess
    has_paged_context: bool
    max_lora_rank: int | None  # None: built without LoRA
    lora_target_modules: tuple[str, ...]

    @property
    def world_size(self) -> int:
        """Processes, and GPUs, that it runs on."""
        return self.tp_size * self.pp_size

    def limits(self, draft_len: int) -> Limits:
        """What a request may be: an engine that guesses keeps room for a step's guesses.

        It cuts what is longer without a word (cpp/tensorrt_llm/batch_manager/llmRequest.cpp,
        validate).
        """
        max_seq_len = self.max_seq_len - draft_len
        return Limits(
            max_seq_len=max_seq_len,
            max_input_len=min(self.max_input_len, max_seq_len - 1),
            vocab_size=self.vocab_size,
        )


def read_engine_config(directory: Path) -> EngineConfig:
    """Reads config.json and checks that each rank's engine is there. Raises ConversionError."""
    path = directory / CONFIG_NAME
    try:
        raw = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as exc:
        raise ConversionError(f"{path}: {exc.strerror}: it is not an engine's folder") from exc
    except msgspec.DecodeError as exc:
        raise ConversionError(f"{path}: {exc}") from exc
    try:
        config = _parse(raw)
    except (KeyError, TypeError, ValueError) as exc:
        raise ConversionError(f"{path}: {exc!r}: it is not an engine's config") from exc
    for rank in range(config.world_size):
        engine = directory / f"rank{rank}.engine"
        if not engine.is_file() or engine.stat().st_size == 0:
            raise ConversionError(
                f"{engine} is missing or empty: the engine was built for {config.world_size} GPUs"
            )
    return config


def _parse(raw: Mapping[str, Any]) -> EngineConfig:
    if "build_config" in raw:
        return _parse_current(raw, raw["build_config"], raw["pretrained_config"])
    return _parse_legacy(raw["builder_config"], raw.get("plugin_config") or {})


def _parse_current(
    raw: Mapping[str, Any], build: Mapping[str, Any], model: Mapping[str, Any]
) -> EngineConfig:
    mapping = model.get("mapping") or {}
    quantization = model.get("quantization") or {}
    plugins = build.get("plugin_config") or {}
    lora = (build.get("lora_config") or {}) if plugins.get("lora_plugin") else None
    return EngineConfig(
        version=str(raw.get("version") or ""),
        architecture=str(model["architecture"]),
        vocab_size=int(model["vocab_size"]),
        max_batch_size=int(build["max_batch_size"]),
        max_input_len=int(build["max_input_len"]),
        max_seq_len=int(build["max_seq_len"]),
        max_num_tokens=int(build["max_num_tokens"]),
        max_beam_width=int(build.get("max_beam_width") or 1),
        tp_size=int(mapping.get("tp_size") or 1),
        pp_size=int(mapping.get("pp_size") or 1),
        ep_size=max(1, int(mapping.get("moe_ep_size") or 1)),
        quant_algo=quantization.get("quant_algo"),
        kv_cache_quant_algo=quantization.get("kv_cache_quant_algo"),
        max_draft_len=int(build.get("max_draft_len") or 0),
        speculative_decoding_mode=_mode(build.get("speculative_decoding_mode")),
        has_paged_context=bool(plugins.get("use_paged_context_fmha")),
        max_lora_rank=None if lora is None else int(lora.get("max_lora_rank") or 0),
        lora_target_modules=() if lora is None else tuple(lora.get("lora_target_modules") or ()),
    )


def _mode(found: Any) -> str | None:
    """The mode as a name: 1.x writes the number of its flag (SpeculativeDecodingMode)."""
    if isinstance(found, int):
        return _MODES[found]
    return None if found in (None, "", "none", "NONE") else str(found).lower()


# tensorrt_llm/models/modeling_utils.py: an IntFlag whose members are auto()
_MODES = {
    0: None,
    1: None,
    2: "draft_tokens_external",
    4: "medusa",
    8: "lookahead_decoding",
    16: "explicit_draft_tokens",
    32: "eagle",
}


def _parse_legacy(build: Mapping[str, Any], plugins: Mapping[str, Any]) -> EngineConfig:
    input_len, batch = int(build["max_input_len"]), int(build["max_batch_size"])
    return EngineConfig(
        version="",
        architecture=str(build.get("name") or ""),
        vocab_size=int(build["vocab_size"]),
        max_batch_size=batch,
        max_input_len=input_len,
        max_seq_len=input_len + int(build["max_output_len"]),
        max_num_tokens=int(build.get("max_num_tokens") or batch * input_len),
        max_beam_width=int(build.get("max_beam_width") or 1),
        tp_size=int(build.get("tensor_parallel") or 1),
        pp_size=int(build.get("pipeline_parallel") or 1),
        ep_size=1,
        quant_algo=None,
        kv_cache_quant_algo=None,
        max_draft_len=0,
        speculative_decoding_mode=None,
        has_paged_context=bool(plugins.get("use_paged_context_fmha")),
        max_lora_rank=None,
        lora_target_modules=(),
    )
