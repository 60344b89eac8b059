"""Puts the engine together: the parameters of config.pbtxt and the artefact's llm_options.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from triton_models.llm_api import upstream
from triton_models.llm_api.engine import Adapter, LlmEngine, LlmLimits
from triton_models.llm_api.options import OptionsError, read_options, sampler_of


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmSettings:
    """The names are those of the parameters in llm_api/config.pbtxt."""

    artefact_dir: Path
    max_seq_len: int
    max_input_len: int
    vocab_size: int
    max_num_sequences: int
    max_queue_size: int
    lora_adapters: str
    exclude_input_in_output: bool
    cancellation_check_period_ms: int
    stats_check_period_ms: int


def load_engine(settings: LlmSettings) -> LlmEngine:
    """Starts the LLM; `close()` the engine. Raises OptionsError, and what loading can raise."""
    options = read_options(settings.artefact_dir)
    sampler_of(options)  # a bad choice is told before minutes of loading
    limits = LlmLimits(
        max_seq_len=settings.max_seq_len,
        max_input_len=settings.max_input_len,
        vocab_size=settings.vocab_size,
        max_num_sequences=settings.max_num_sequences,
        max_queue_size=settings.max_queue_size,
    )
    adapters = parse_adapters(settings.lora_adapters, settings.artefact_dir)
    return LlmEngine(lambda: upstream.make_llm(settings.artefact_dir, options), limits, adapters)


def parse_adapters(text: str, artefact_dir: Path) -> Mapping[int, Adapter]:
    """The parameter `lora_adapters`: task id -> adapter. Raises OptionsError."""
    try:
        return {
            int(task_id): Adapter(entry["name"], artefact_dir / entry["path"])
            for task_id, entry in json.loads(text).items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise OptionsError(f"parameter lora_adapters: {text!r}") from exc
