"""The request side of the tensor contract: input tensors become an EngineRequest.

Knows the contract's values and what this engine does not do; knows nothing about Triton's Python
API, so that it can be tested without a Triton.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triton_models.contract import GUIDE_TENSOR, GUIDE_TYPE_TENSOR, MAX_TOP_LOG_PROBS
from triton_models.errors import InvalidArgumentError, UnsupportedTensorError
from triton_models.request import NO_END_ID, EngineRequest, Guide, SamplingParams, TokenEvent

Tensors = Mapping[str, NDArray[Any]]

MAX_NUM_SEQUENCES = 128

# What an engine does not do unless it says so. A tensor without elements or of these values asks
# for nothing.
_UNSUPPORTED: dict[str, tuple[float, ...]] = {
    "encoder_input_features": (),
    "encoder_output_lengths": (0,),
    "draft_input_ids": (),
    "decoder_input_ids": (),
    "decoder_input_lengths": (0,),
    "draft_logits": (),
    "draft_acceptance_threshold": (0,),
    "beam_width": (0, 1),
    "runtime_top_p_min": (0,),
    "runtime_top_p_decay": (0, 1),
    "runtime_top_p_reset_ids": (-1,),
    "len_penalty": (0, 1),
    "early_stopping": (0, 1),  # of beam search, which is refused by beam_width
    "beam_search_diversity_rate": (0,),
    "return_context_logits": (0,),
    "return_generation_logits": (0,),
    "prompt_embedding_table": (),
    "prompt_table_extra_ids": (),
    "prompt_vocab_size": (0,),
    "cross_attention_mask": (),
    "mrope_rotary_cos_sin": (),
    "mrope_position_deltas": (0,),
    "lora_task_id": (),
    "lora_weights": (),
    "lora_config": (),
    "context_phase_params": (),
    "skip_cross_attn_blocks": (0,),
    "retention_token_range_starts": (),
    "retention_token_range_ends": (),
    "retention_token_range_priorities": (),
    "retention_token_range_durations_ms": (),
    "retention_decode_priority": (),
    "retention_decode_duration_ms": (),
    "lookahead_window_size": (),
    "lookahead_ngram_size": (),
    "lookahead_verification_set_size": (),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WireRequest:
    """A request as its tensors say it, before a guide is compiled and someone listens."""

    prompt_token_ids: list[int]
    max_new_tokens: int
    end_id: int
    stop_words: tuple[tuple[int, ...], ...]
    num_sequences: int
    sampling: SamplingParams
    guide: tuple[str, str] | None  # type and text
    streaming: bool
    exclude_input_in_output: bool
    return_perf_metrics: bool
    return_num_input_tokens: bool
    return_num_output_tokens: bool
    returns_prompt_log_probs: bool
    cache_salt: int | None
    priority: int
    lora_task_id: int | None = None

    def to_engine(
        self, on_event: Callable[[TokenEvent], None], guide: Guide | None
    ) -> EngineRequest:
        """The batcher's part."""
        return EngineRequest(
            prompt_token_ids=self.prompt_token_ids,
            max_new_tokens=self.max_new_tokens,
            on_event=on_event,
            end_id=self.end_id,
            stop_words=self.stop_words,
            num_sequences=self.num_sequences,
            sampling=self.sampling,
            guide=guide,
            returns_prompt_log_probs=self.returns_prompt_log_probs,
            cache_salt=self.cache_salt,
            priority=self.priority,
            guide_text=self.guide,
            lora_task_id=self.lora_task_id,
            returns_perf_metrics=self.return_perf_metrics,
        )


def is_stop(tensors: Tensors) -> bool:
    """Whether this is a `stop` request: it cancels another one and generates nothing."""
    return bool(_scalar(tensors, "stop", False))


def decode(
    tensors: Tensors,
    vocab_size: int,
    *,
    exclude_input_in_output: bool,
    supported: frozenset[str] = frozenset(),
) -> WireRequest:
    """Reads and validates all tensors of a generating request.

    `supported` are those that the engine does and others do not. Raises InvalidArgumentError and
    UnsupportedTensorError, both with the tensor's name.
    """
    _refuse_unsupported(tensors, supported)
    returns_prompt_log_probs = bool(_scalar(tensors, "return_prompt_log_probs", False))
    # the prompt's log-probs are an answer by themselves
    min_new_tokens = 0 if returns_prompt_log_probs else 1
    cache_salt = _scalar(tensors, "cache_salt", None)
    lora_task_id = _scalar(tensors, "lora_task_id", None)
    return WireRequest(
        prompt_token_ids=_prompt(tensors, vocab_size),
        max_new_tokens=_number(tensors, "request_output_len", 0, low=min_new_tokens),
        end_id=_number(tensors, "end_id", NO_END_ID, low=-1, high=vocab_size - 1),
        stop_words=decode_words(tensors, "stop_words_list"),
        num_sequences=_number(tensors, "num_return_sequences", 1, low=1, high=MAX_NUM_SEQUENCES),
        sampling=_sampling(tensors, vocab_size),
        guide=_guide(tensors),
        streaming=bool(_scalar(tensors, "streaming", False)),
        exclude_input_in_output=bool(
            _scalar(tensors, "exclude_input_in_output", exclude_input_in_output)
        ),
        return_perf_metrics=bool(_scalar(tensors, "return_perf_metrics", False)),
        return_num_input_tokens=bool(_scalar(tensors, "return_num_input_tokens", False)),
        return_num_output_tokens=bool(_scalar(tensors, "return_num_output_tokens", False)),
        returns_prompt_log_probs=returns_prompt_log_probs,
        cache_salt=None if cache_salt is None else int(cache_salt),
        priority=_number(tensors, "priority", 0),
        lora_task_id=None if lora_task_id is None else int(lora_task_id),
    )


def decode_words(tensors: Tensors, name: str) -> tuple[tuple[int, ...], ...]:
    """A `[1, 2, n]` word list: row 0 token ids, row 1 the words' end offsets, padded with -1."""
    tensor = tensors.get(name)
    if tensor is None or tensor.size == 0:
        return ()
    if tensor.ndim != 3 or tensor.shape[:2] != (1, 2):
        raise InvalidArgumentError(name, f"shape {list(tensor.shape)} is not [1, 2, n]")
    token_ids, offsets = tensor[0].tolist()
    words = []
    start = 0
    ends = [end for end in offsets if end != -1]
    if ends != offsets[: len(ends)]:
        raise InvalidArgumentError(name, "-1 is only allowed at the end of the offsets")
    for end in ends:
        if not start < end <= len(token_ids):
            raise InvalidArgumentError(name, f"offset {end} does not follow {start}")
        words.append(tuple(token_ids[start:end]))
        start = end
    return tuple(words)


def _refuse_unsupported(tensors: Tensors, supported: frozenset[str]) -> None:
    for name in (tensors.keys() & _UNSUPPORTED.keys()) - supported:
        tensor = tensors[name]
        if tensor.size and not np.isin(tensor.astype(np.float64), _UNSUPPORTED[name]).all():
            raise UnsupportedTensorError(name)


def _prompt(tensors: Tensors, vocab_size: int) -> list[int]:
    token_ids = tensors.get("input_ids")
    if token_ids is None or token_ids.size == 0:
        raise InvalidArgumentError("input_ids", "the prompt has no tokens")
    if token_ids.ndim != 2 or token_ids.shape[0] != 1:
        raise InvalidArgumentError(
            "input_ids", f"shape {list(token_ids.shape)} is not [1, length]: one prompt a request"
        )
    if token_ids.min() < 0 or token_ids.max() >= vocab_size:
        raise InvalidArgumentError("input_ids", f"token ids are 0 to {vocab_size - 1}")
    prompt: list[int] = token_ids[0].tolist()
    return prompt


def _sampling(tensors: Tensors, vocab_size: int) -> SamplingParams:
    bias_token_ids, bias_values = _bias(tensors, vocab_size)
    bad_words = decode_words(tensors, "bad_words_list")
    if any(not 0 <= token_id < vocab_size for word in bad_words for token_id in word):
        raise InvalidArgumentError("bad_words_list", f"token ids are 0 to {vocab_size - 1}")
    return SamplingParams(
        temperature=_real(tensors, "temperature", 1.0, low=0.0),
        top_k=_number(tensors, "runtime_top_k", 0, low=0),
        top_p=min(_real(tensors, "runtime_top_p", 0.0), 1.0),
        min_p=_real(tensors, "min_p", 0.0, low=0.0, high=1.0),
        repetition_penalty=_real(tensors, "repetition_penalty", 1.0, above=0.0),
        presence_penalty=_real(tensors, "presence_penalty", 0.0),
        frequency_penalty=_real(tensors, "frequency_penalty", 0.0),
        min_tokens=_number(tensors, "min_tokens", 0, low=0),
        seed=_number(tensors, "seed", 0),
        bias_token_ids=bias_token_ids,
        bias_values=bias_values,
        bad_words=bad_words,
        return_log_probs=bool(_scalar(tensors, "return_log_probs", False)),
        num_top_log_probs=_number(tensors, "num_top_log_probs", 0, low=0, high=MAX_TOP_LOG_PROBS),
    )


def _bias(
    tensors: Tensors, vocab_size: int
) -> tuple[NDArray[np.int64] | None, NDArray[np.float32] | None]:
    """The biased tokens only; a tensor padded beyond the vocabulary is cut."""
    tensor = tensors.get("embedding_bias")
    if tensor is None or tensor.size == 0:
        return None, None
    bias = tensor.reshape(-1)
    if bias.size < vocab_size:
        raise InvalidArgumentError("embedding_bias", f"{bias.size} values for {vocab_size} tokens")
    if np.isnan(bias).any():
        raise InvalidArgumentError("embedding_bias", "not a number")
    token_ids = np.flatnonzero(bias[:vocab_size])
    return token_ids, bias[token_ids]


def _guide(tensors: Tensors) -> tuple[str, str] | None:
    guide_type = _text(tensors, GUIDE_TYPE_TENSOR)
    if not guide_type:
        return None
    guide = _text(tensors, GUIDE_TENSOR)
    if not guide and guide_type != "json":
        raise InvalidArgumentError(GUIDE_TENSOR, f"missing for {guide_type}")
    return guide_type, guide


def _text(tensors: Tensors, name: str) -> str:
    value = _scalar(tensors, name, b"")
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError as exc:
        raise InvalidArgumentError(name, "not UTF-8") from exc


def _number(
    tensors: Tensors, name: str, default: int, *, low: int | None = None, high: int | None = None
) -> int:
    value = int(_scalar(tensors, name, default))
    if low is not None and value < low:
        raise InvalidArgumentError(name, f"{value} is below {low}")
    if high is not None and value > high:
        raise InvalidArgumentError(name, f"{value} is above {high}")
    return value


def _real(
    tensors: Tensors,
    name: str,
    default: float,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    above: float = -np.inf,
) -> float:
    value = float(_scalar(tensors, name, default))
    if not (np.isfinite(value) and low <= value <= high and value > above):
        raise InvalidArgumentError(name, f"{value} is out of range")
    return value


def _scalar(tensors: Tensors, name: str, default: Any) -> Any:
    """The one value of a tensor; `default` if it is absent or has no elements."""
    tensor = tensors.get(name)
    if tensor is None or tensor.size == 0:
        return default
    if tensor.size > 1:
        raise InvalidArgumentError(name, f"{tensor.size} values where one belongs")
    return tensor.reshape(-1)[0]
