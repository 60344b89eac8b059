"""Requests in the LLM API's words, and what a model's options let it honour."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triton_models.errors import InvalidArgumentError
from triton_models.llm_api.options import (
    OPTIONS_FILE,
    OptionsError,
    read_options,
    sampler_of,
    undeclared_tensors,
)
from triton_models.llm_api.sampling import dense_bias, num_submitted, sampling_values
from triton_models.request import EngineRequest, SamplingParams


def request(**values: Any) -> EngineRequest:
    sampling = SamplingParams(**values.pop("sampling", {}))
    return EngineRequest(
        prompt_token_ids=[1], max_new_tokens=9, on_event=print, sampling=sampling, **values
    )


def values_of(**values: Any) -> dict[str, Any]:
    return sampling_values(request(**values), 9)


def test_a_greedy_request_says_so_and_nothing_else() -> None:
    assert values_of(end_id=2) == {
        "max_tokens": 9,
        "end_id": 2,
        "pad_id": 2,
        "ignore_eos": False,
        "n": 1,
        "include_stop_str_in_output": True,
        "detokenize": False,
        "add_special_tokens": False,
        "return_perf_metrics": False,
        "top_k": 1,
    }


def test_without_an_end_id_the_models_own_is_ignored() -> None:
    values = values_of()
    assert (values["end_id"], values["ignore_eos"], values["pad_id"]) == (-1, True, 0)


def test_sampling_is_said_in_full() -> None:
    values = values_of(
        num_sequences=3,
        sampling={"temperature": 0.5, "top_p": 0.9, "min_p": 0.1, "seed": 4, "min_tokens": 2},
    )
    wanted = {"temperature": 0.5, "top_k": 0, "top_p": 0.9, "min_p": 0.1, "seed": 4, "n": 3}
    assert wanted.items() <= values.items()
    assert values["min_tokens"] == 2
    assert values_of(sampling={"top_k": 5})["top_p"] == 1.0


def test_only_penalties_that_change_something_are_said() -> None:
    values = values_of(sampling={"presence_penalty": 0.5})
    assert values["presence_penalty"] == 0.5
    assert not {"repetition_penalty", "frequency_penalty"} & values.keys()


def test_log_probs_are_asked_for_by_number_at_least_one() -> None:
    assert "logprobs" not in values_of()
    assert values_of(sampling={"return_log_probs": True})["logprobs"] == 1
    assert values_of(sampling={"num_top_log_probs": 5})["logprobs"] == 5


def test_single_stop_tokens_end_it_in_the_engine() -> None:
    assert values_of(stop_words=((5,), (6, 7)))["stop_token_ids"] == [5]


def test_bad_words_are_single_tokens() -> None:
    assert values_of(sampling={"bad_words": ((5,), (6,))})["bad_token_ids"] == [5, 6]
    with pytest.raises(InvalidArgumentError, match="bad_words_list"):
        values_of(sampling={"bad_words": ((5, 6),)})


def test_greedy_sequences_are_computed_once() -> None:
    assert num_submitted(request(num_sequences=4)) == 1
    assert num_submitted(request(num_sequences=4, sampling={"top_p": 0.9})) == 4


def test_a_bias_is_of_the_whole_vocabulary() -> None:
    sampling = SamplingParams(
        bias_token_ids=np.array([1, 3]), bias_values=np.array([2.0, -1.0], np.float32)
    )
    assert dense_bias(sampling, 5).tolist() == [0, 2, 0, -1, 0]


def test_the_default_sampler_does_less_than_it_takes() -> None:
    names = undeclared_tensors({"guided_decoding_backend": "xgrammar", "lora_config": {"a": 1}})
    assert names == undeclared_tensors(
        {
            "sampler_type": "TorchSampler",
            "guided_decoding_backend": "xgrammar",
            "lora_config": {"a": 1},
        }
    )
    assert {"seed", "min_p", "presence_penalty", "bad_words_list"} <= names
    assert "num_top_log_probs" not in names


def test_guides_and_adapters_are_declared_where_the_options_have_them() -> None:
    names = undeclared_tensors({"sampler_type": "TRTLLMSampler"})
    assert {"guided_decoding_guide", "guided_decoding_guide_type", "lora_task_id"} <= names
    assert {"num_top_log_probs", "top_log_probs"} <= names
    assert "seed" not in names


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"sampler_type": "Magic"}, "'Magic' is not one of auto, TorchSampler, TRTLLMSampler"),
        (
            {"sampler_type": "TRTLLMSampler", "speculative_config": {"decoding_type": "NGram"}},
            "cannot do speculative decoding",
        ),
    ],
)
def test_samplers_that_cannot_be_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(OptionsError, match=reason):
        sampler_of(options)


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_options_that_cannot_be_read_name_their_file(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / OPTIONS_FILE).write_text(text)
    with pytest.raises(OptionsError, match=OPTIONS_FILE):
        read_options(tmp_path)
    (tmp_path / OPTIONS_FILE).write_text(json.dumps({"max_batch_size": 4}))
    assert read_options(tmp_path) == {"max_batch_size": 4}
