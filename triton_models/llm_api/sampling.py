"""An EngineRequest in the words of the LLM API's SamplingParams. Pure: values in, values out.

Source: tensorrt_llm/sampling_params.py of TensorRT-LLM 1.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from triton_models.errors import InvalidArgumentError
from triton_models.request import NO_END_ID, EngineRequest, SamplingParams


def sampling_values(request: EngineRequest, max_new_tokens: int) -> dict[str, Any]:
    """Arguments of `SamplingParams`, but for the guide and the bias, which are classes upstream.

    Raises InvalidArgumentError for what the API has no words for.
    """
    sampling = request.sampling
    values: dict[str, Any] = {
        "max_tokens": max_new_tokens,
        "end_id": request.end_id,
        "pad_id": max(request.end_id, 0),
        "ignore_eos": request.end_id == NO_END_ID,
        "n": num_submitted(request),
        "include_stop_str_in_output": True,
        "detokenize": False,
        "add_special_tokens": False,
        "return_perf_metrics": request.returns_perf_metrics,
        **_choice(sampling),
        **_penalties(sampling),
    }
    # Longer ones, and these, are looked for among the tokens; this spares the steps after the end
    if stop_ids := [word[0] for word in request.stop_words if len(word) == 1]:
        values["stop_token_ids"] = stop_ids
    if sampling.bad_words:
        values["bad_token_ids"] = _bad_token_ids(sampling)
    if sampling.min_tokens:
        values["min_tokens"] = sampling.min_tokens
    if sampling.return_log_probs or sampling.num_top_log_probs:
        values["logprobs"] = max(sampling.num_top_log_probs, 1)  # 0 gives none at all
    return values


def num_submitted(request: EngineRequest) -> int:
    """Greedy sequences are all alike, and the API refuses to compute them twice."""
    return 1 if request.sampling.is_greedy else request.num_sequences


def dense_bias(sampling: SamplingParams, vocab_size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """`embedding_bias`, float32 [vocab]."""
    bias = np.zeros(vocab_size, np.float32)
    if sampling.bias_token_ids is not None and sampling.bias_values is not None:
        bias[sampling.bias_token_ids] = sampling.bias_values
    return bias


def _choice(sampling: SamplingParams) -> dict[str, Any]:
    """Said explicitly: the API is greedy where nothing is given."""
    if sampling.is_greedy:
        return {"top_k": 1}
    values: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p or 1.0,
    }
    if sampling.seed:
        values["seed"] = sampling.seed
    if sampling.min_p:
        values["min_p"] = sampling.min_p
    return values


def _penalties(sampling: SamplingParams) -> dict[str, float]:
    neutral = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    return {
        name: getattr(sampling, name)
        for name, value in neutral.items()
        if getattr(sampling, name) != value
    }


def _bad_token_ids(sampling: SamplingParams) -> list[int]:
    if any(len(word) != 1 for word in sampling.bad_words):
        raise InvalidArgumentError("bad_words_list", "TensorRT-LLM's LLM API takes single tokens")
    return [word[0] for word in sampling.bad_words]
