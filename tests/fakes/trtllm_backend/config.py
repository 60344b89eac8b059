"""What the backend reads when it loads a model: parameters, and the engine's config.json.

Source: the constructor of ModelInstanceState, model_instance_state.cc:140-480.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

VERSION = "1.2.1"
GPT_MODEL_TYPES = ("V1", "inflight_batching", "inflight_fused_batching")
SCHEDULER_POLICIES = ("max_utilization", "guaranteed_no_evict")
# read without a try: a model whose configuration lacks one of these keys does not load
REQUIRED_KEYS = ("tokenizer_dir", "guided_decoding_backend", "xgrammar_tokenizer_info_path")
SAMPLING_MODES = ("top_k", "top_p", "top_k_top_p", "beam_search")
# decoding_mode -> build_config.speculative_decoding_mode, a flag's number
DRAFTS_EXTERNAL = 2
DRAFTING_MODES = {"medusa": 4, "lookahead": 8, "redrafter": 16, "eagle": 32}
_TREE = re.compile(r"\{\d+(, ?\d+)*\}(, ?\{\d+(, ?\d+)*\})*")  # {0, 0, 0}, {0, 1}
GUIDE_INFO_KEYS = ("encoded_vocab", "tokenizer_str", "stop_token_ids")


class LoadError(Exception):
    """The model cannot be loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What counts of config.json; `builder_config` is the name of old engines."""

    max_input_len: int
    max_seq_len: int
    max_batch_size: int
    max_beam_width: int
    vocab_size: int
    max_lora_rank: int  # 0: built without LoRA
    max_draft_len: int  # tokens of a step's guesses, whoever makes them
    takes_drafts: bool  # guesses come with the requests
    slips_every: int  # of the stand-in: one in so many contexts it chooses otherwise; 0: never


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendConfig:
    engine: Engine
    is_decoupled: bool
    max_batch_size: int
    max_queue_size: int  # 0: no limit
    exclude_input_in_output: bool
    cancellation_check_period_ms: int
    lora_host_bytes: int
    guide_info: Mapping[str, Any] | None

    @classmethod
    def read(cls, model: Mapping[str, Any]) -> BackendConfig:
        """`model` is Triton's model configuration as JSON. Raises LoadError."""
        parameters = _Parameters(model)
        if "worker_path" in parameters:
            raise LoadError("worker_path parameter is deprecated, use executor_worker_path")
        for key in REQUIRED_KEYS:
            if key not in parameters:
                raise LoadError(f"Could not find parameter: {key}")
        _one_of(parameters, "gpt_model_type", GPT_MODEL_TYPES, is_fatal=True)
        _one_of(parameters, "batch_scheduler_policy", SCHEDULER_POLICIES, is_fatal=False)
        raw, engine = _read_engine(Path(parameters.get("gpt_model_path", str, "")))
        if parameters.get("max_beam_width", int, 1) > engine.max_beam_width:
            raise LoadError("max_beam_width is larger than that of the engine")
        plugins = raw.get("plugin_config", {})
        if parameters.get("enable_chunked_context", _flag, False) and not plugins.get(
            "use_paged_context_fmha"
        ):
            raise LoadError("enable_chunked_context requires use_paged_context_fmha")
        if engine.takes_drafts and not parameters.get("enable_kv_cache_reuse", _flag, True):
            raise LoadError(
                "KV cache block reuse must be enabled for speculative decoding target model"
            )
        _check_decoding(parameters, raw)
        queue = model.get("dynamic_batching", {}).get("default_queue_policy", {})
        return cls(
            engine=engine,
            is_decoupled=bool(model.get("model_transaction_policy", {}).get("decoupled")),
            max_batch_size=int(model.get("max_batch_size", 0)),
            max_queue_size=int(queue.get("max_queue_size", 0)),
            exclude_input_in_output=parameters.get("exclude_input_in_output", _flag, False),
            cancellation_check_period_ms=parameters.get("cancellation_check_period_ms", int, 100),
            lora_host_bytes=parameters.get("lora_cache_host_memory_bytes", int, 1 << 30),
            guide_info=_read_guide_info(parameters),
        )


class _Parameters:
    """Texts; what cannot be parsed is as if it were not there, with a warning."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        parameters = model.get("parameters", {})
        self._texts = {key: value["string_value"] for key, value in parameters.items()}

    def __contains__(self, key: str) -> bool:
        return key in self._texts

    def get(self, key: str, parse: Callable[[str], T], default: T) -> T:
        text = self._texts.get(key, "")
        if not text or text.startswith("${"):
            return default
        try:
            return parse(text)
        except (ValueError, KeyError):
            logger.warning("%s is not specified or cannot be parsed: %s", key, text)
            return default


def _flag(text: str) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[text.lower()]


def _one_of(parameters: _Parameters, key: str, known: tuple[str, ...], *, is_fatal: bool) -> None:
    value = parameters.get(key, str, known[-1])
    if value in known:
        return
    if is_fatal:
        raise LoadError(f"Invalid {key}: {value}. Must be one of {', '.join(known)}")
    logger.warning("%s %s is not one of %s: the default is used", key, value, ", ".join(known))


def _check_decoding(parameters: _Parameters, build: Mapping[str, Any]) -> None:
    """Stricter than the backend, which drops what it cannot read with a warning."""
    mode = parameters.get("decoding_mode", str, "")
    if mode and mode not in (*SAMPLING_MODES, *DRAFTING_MODES):
        raise LoadError(f"Invalid decoding_mode: {mode}")
    built = build.get("speculative_decoding_mode", 1)
    if mode in DRAFTING_MODES and built != DRAFTING_MODES[mode]:
        raise LoadError(f"decoding_mode is {mode}, the engine's speculative_decoding_mode {built}")
    for name in ("medusa_choices", "eagle_choices"):
        text = parameters.get(name, str, "")
        if text and not _TREE.fullmatch(text):
            raise LoadError(f"{name} cannot be parsed: {text}")
    windows = parameters.get("max_attention_window_size", str, "")
    if windows and not re.fullmatch(r"\d+(,\d+)*", windows):
        raise LoadError(f"max_attention_window_size cannot be parsed: {windows}")


def _read_engine(folder: Path) -> tuple[Mapping[str, Any], Engine]:
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except OSError as exc:
        raise LoadError(f"cannot read the engine's config.json: {exc}") from exc
    if config.get("version") != VERSION:
        raise LoadError(f"the engine is of TensorRT-LLM {config.get('version')}, not {VERSION}")
    build = config.get("build_config") or config["builder_config"]
    pretrained = config["pretrained_config"]
    for rank in range(pretrained["mapping"]["world_size"]):
        if not (folder / f"rank{rank}.engine").is_file():
            raise LoadError(f"rank{rank}.engine does not exist")
    has_lora = build.get("plugin_config", {}).get("lora_plugin") not in (None, "disable", False)
    engine = Engine(
        max_input_len=build["max_input_len"],
        max_seq_len=build["max_seq_len"],
        max_batch_size=build["max_batch_size"],
        max_beam_width=build["max_beam_width"],
        vocab_size=pretrained["vocab_size"],
        max_lora_rank=build["lora_config"]["max_lora_rank"] if has_lora else 0,
        max_draft_len=build.get("max_draft_len") or pretrained.get("max_draft_len", 0),
        takes_drafts=build.get("speculative_decoding_mode", 1) == DRAFTS_EXTERNAL,
        slips_every=config.get("stand_in", {}).get("slips_every", 0),
    )
    return build, engine


def _read_guide_info(parameters: _Parameters) -> Mapping[str, Any] | None:
    path = parameters.get("xgrammar_tokenizer_info_path", str, "")
    if parameters.get("guided_decoding_backend", str, "") != "xgrammar" or not path:
        return None
    try:
        info: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise LoadError(f"Failed to open xgrammar tokenizer info: {exc}") from exc
    for key in GUIDE_INFO_KEYS:
        if key not in info:
            raise LoadError(f"xgrammar_tokenizer_info has no {key}")
    return info
