"""Input tensors become an executor request. Source: utils.cc:750-1010 and the executor's checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.fakes.trtllm_backend.config import BackendConfig

Tensors = Mapping[str, NDArray[Any]]
Words = tuple[tuple[int, ...], ...]

# Read under another name than the template declares (utils.h:86), so that it has no effect
IGNORED = frozenset({"runtime_top_p_min"})


class EnqueueError(Exception):
    """The request is refused: one empty response with the error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    task_id: int
    weights: NDArray[np.float16] | None  # [rows, values]
    config: NDArray[np.int32] | None  # [rows, 3]: module, layer, rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    prompt: list[int]
    max_new_tokens: int
    num_sequences: int
    end_id: int
    stop_words: Words
    bad_words: Words
    bias: NDArray[np.float32] | None
    temperature: float
    top_k: int
    top_p: float
    has_sampling: bool  # without any sampling parameter log-probs come back 0
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    min_tokens: int
    seed: int
    streaming: bool
    excludes_input: bool
    returns_log_probs: bool
    returns_perf_metrics: bool
    returns_num_tokens: tuple[bool, bool]  # of the input, of the output
    lora: Lora | None
    guide: tuple[str, str] | None
    drafts: list[int]
    outputs: frozenset[str] = field(default_factory=frozenset)


def is_stop(tensors: Tensors) -> bool:
    """Only the first byte is read."""
    tensor = tensors.get("stop")
    return tensor is not None and tensor.size > 0 and bool(tensor.reshape(-1)[0])


def read_request(tensors: Tensors, outputs: frozenset[str], config: BackendConfig) -> Request:
    """Raises EnqueueError."""
    read = _Reader(tensors)
    streaming = read.flag("streaming")
    if streaming and not config.is_decoupled:
        raise EnqueueError("Streaming is only supported if model is deployed using decoupled mode.")
    return Request(
        prompt=_prompt(tensors),
        max_new_tokens=read.integer("request_output_len", 0),
        num_sequences=read.integer("num_return_sequences", 1),
        end_id=read.integer("end_id", -1),
        stop_words=read_words(tensors, "stop_words_list"),
        bad_words=read_words(tensors, "bad_words_list"),
        bias=None if "embedding_bias" not in tensors else tensors["embedding_bias"].reshape(-1),
        temperature=read.real("temperature", 1.0),
        top_k=read.integer("runtime_top_k", 0),
        top_p=read.real("runtime_top_p", 0.0),
        has_sampling=bool(
            tensors.keys() & {"temperature", "runtime_top_k", "runtime_top_p", "seed"}
        ),
        repetition_penalty=read.real("repetition_penalty", 1.0),
        presence_penalty=read.real("presence_penalty", 0.0),
        frequency_penalty=read.real("frequency_penalty", 0.0),
        min_tokens=read.integer("min_tokens", 0),
        seed=read.integer("seed", 0),
        streaming=streaming,
        excludes_input=read.flag("exclude_input_in_output", default=config.exclude_input_in_output),
        returns_log_probs=read.flag("return_log_probs"),
        returns_perf_metrics=read.flag("return_perf_metrics"),
        returns_num_tokens=(
            read.flag("return_num_input_tokens"),
            read.flag("return_num_output_tokens"),
        ),
        lora=_lora(tensors, read),
        guide=_guide(read),
        drafts=tensors["draft_input_ids"].reshape(-1).tolist()
        if "draft_input_ids" in tensors
        else [],
        outputs=outputs,
    )


def read_words(tensors: Tensors, name: str) -> Words:
    """[1, 2, n]: token ids, and end offsets padded with -1. Raises EnqueueError."""
    if name not in tensors or tensors[name].size == 0:
        return ()
    tensor = tensors[name]
    if tensor.size % 2 or tensor.ndim != 3 or tensor.shape[1] != 2:
        raise EnqueueError(f"{name} must have shape [1, 2, n]")
    token_ids, offsets = tensor[0].tolist()
    words = []
    start = 0
    is_over = False
    for offset in offsets:
        if offset == -1:
            is_over = True
            continue
        if is_over:
            raise EnqueueError(f"{name}: -1 offsets must be at the end")
        if not start < offset <= len(token_ids):
            raise EnqueueError(f"{name}: offsets must be strictly increasing and at most n")
        words.append(tuple(token_ids[start:offset]))
        start = offset
    return tuple(words)


class _Reader:
    """Scalars, `[1, 1]` on the wire; declared with `reshape []` they arrive as `[1]`."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = {name: one for name, one in tensors.items() if name not in IGNORED}

    def _value(self, name: str, default: Any) -> Any:
        tensor = self._tensors.get(name)
        return default if tensor is None or not tensor.size else tensor.reshape(-1)[0]

    def integer(self, name: str, default: int) -> int:
        return int(self._value(name, default))

    def real(self, name: str, default: float) -> float:
        return float(self._value(name, default))

    def flag(self, name: str, *, default: bool = False) -> bool:
        return bool(self._value(name, default))

    def text(self, name: str) -> str | None:
        value = self._value(name, None)
        return None if value is None else value.decode()


def _prompt(tensors: Tensors) -> list[int]:
    if "input_ids" not in tensors:
        raise EnqueueError("inputTokens or encoderInputFeatures tensor not provided")
    tensor = tensors["input_ids"]
    if tensor.ndim != 2:
        raise EnqueueError("Expected inputTokens tensors to have 2 dimensions")
    if tensor.shape[0] != 1:
        raise EnqueueError("the stand-in takes one prompt a request")
    if tensor.shape[1] == 0:
        raise EnqueueError("Prompt is empty")
    prompt: list[int] = tensor[0].tolist()
    return prompt


def _lora(tensors: Tensors, read: _Reader) -> Lora | None:
    if "lora_task_id" not in tensors:
        if tensors.keys() & {"lora_weights", "lora_config"}:
            raise EnqueueError("lora_weights and lora_config need a lora_task_id")
        return None
    weights, config = tensors.get("lora_weights"), tensors.get("lora_config")
    if (weights is None) != (config is None):
        raise EnqueueError("Either both or neither of lora_weights and lora_config are given")
    if weights is None or config is None:
        return Lora(task_id=read.integer("lora_task_id", 0), weights=None, config=None)
    weights, config = weights[0], config[0]  # the batch axis
    if weights.ndim != 2 or config.ndim != 2 or config.shape[1] != 3:
        raise EnqueueError("lora_weights is [rows, values], lora_config [rows, 3]")
    if len(weights) != len(config):
        raise EnqueueError("Expected lora_weights and lora_config to have as many rows")
    return Lora(task_id=read.integer("lora_task_id", 0), weights=weights, config=config)


def _guide(read: _Reader) -> tuple[str, str] | None:
    guide_type = read.text("guided_decoding_guide_type")
    if guide_type is None:
        return None
    if guide_type not in ("json", "json_schema", "regex", "ebnf_grammar"):
        raise EnqueueError(f"Unsupported guide type {guide_type}")
    return guide_type, read.text("guided_decoding_guide") or ""
