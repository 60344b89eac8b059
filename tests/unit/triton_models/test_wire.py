"""Input tensors become requests, or an error that names the tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from triton_models.contract import CPU_EXTRA_INPUTS, INPUTS
from triton_models.errors import InvalidArgumentError, UnsupportedTensorError
from triton_models.wire import WireRequest, decode, decode_words, is_stop

VOCAB_SIZE = 100
NUMPY = {
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT64": np.uint64,
    "UINT8": np.uint8,
    "FP32": np.float32,
    "FP16": np.float16,
    "BOOL": np.bool_,
    "BYTES": np.object_,
}
SPECS = {spec.name: spec for spec in INPUTS + CPU_EXTRA_INPUTS}


def tensor(name: str, value: Any) -> NDArray[Any]:
    """As Triton hands it over: [1] for a scalar, with the batch axis for the rest."""
    spec = SPECS[name]
    array = np.array(value, NUMPY[spec.datatype])
    return array.reshape(1) if array.ndim == 0 else array


def tensors(**values: Any) -> dict[str, NDArray[Any]]:
    base = {"input_ids": [[1, 2, 3]], "input_lengths": 3, "request_output_len": 16}
    return {name: tensor(name, value) for name, value in (base | values).items()}


def read(**values: Any) -> WireRequest:
    return decode(tensors(**values), VOCAB_SIZE, exclude_input_in_output=True)


def test_a_minimal_request_is_greedy_and_not_streamed() -> None:
    request = read()
    assert request.prompt_token_ids == [1, 2, 3]
    assert request.max_new_tokens == 16
    assert request.end_id == -1
    assert request.num_sequences == 1
    assert request.sampling.is_greedy
    assert request.sampling.seed == 0
    assert request.guide is None
    assert not request.streaming
    assert request.exclude_input_in_output


def test_all_that_the_engine_does_is_read() -> None:
    bias = np.zeros((1, VOCAB_SIZE + 28), np.float32)
    bias[0, [4, 7, 120]] = [1.5, -2, 9]
    request = read(
        end_id=2,
        num_return_sequences=3,
        stop_words_list=[[[10, 11, 12], [2, 3, -1]]],
        bad_words_list=[[[5, 6], [2, -1]]],
        embedding_bias=bias,
        temperature=0.5,
        runtime_top_k=40,
        runtime_top_p=0.9,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        min_tokens=4,
        seed=2**63 + 1,
        return_log_probs=True,
        num_top_log_probs=5,
        return_perf_metrics=True,
        return_num_input_tokens=True,
        return_num_output_tokens=True,
        exclude_input_in_output=False,
        streaming=True,
        guided_decoding_guide_type=[[b"regex"]],
        guided_decoding_guide=[["[ab]+"]],
    )
    sampling = request.sampling
    assert request.stop_words == ((10, 11), (12,))
    assert sampling.bad_words == ((5, 6),)
    assert sampling.bias_token_ids is not None
    assert sampling.bias_values is not None
    assert sampling.bias_token_ids.tolist() == [4, 7]
    assert sampling.bias_values.tolist() == [1.5, -2]
    assert (sampling.top_k, sampling.min_tokens, sampling.seed) == (40, 4, 2**63 + 1)
    assert sampling.top_p == pytest.approx(0.9)
    assert request.guide == ("regex", "[ab]+")
    assert request.streaming
    assert not request.exclude_input_in_output


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("input_ids", [[]]),
        ("input_ids", [[1, VOCAB_SIZE]]),
        ("input_ids", [[-1]]),
        ("input_ids", [[1], [2]]),
        ("request_output_len", 0),
        ("end_id", VOCAB_SIZE),
        ("num_return_sequences", 0),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("runtime_top_k", -1),
        ("runtime_top_p", float("inf")),
        ("min_p", 1.5),
        ("repetition_penalty", 0.0),
        ("presence_penalty", float("nan")),
        ("min_tokens", -1),
        ("num_top_log_probs", 21),
        ("embedding_bias", [[1.0] * 99]),
        ("embedding_bias", [[float("nan")] * 100]),
        ("bad_words_list", [[[VOCAB_SIZE], [1]]]),
        ("bad_words_list", [[1, 2]]),
        ("stop_words_list", [[[1, 2], [2, 1]]]),
        ("stop_words_list", [[[1, 2], [-1, 2]]]),
        ("stop_words_list", [[[1, 2], [3, -1]]]),
        ("seed", [1, 2]),
        ("guided_decoding_guide_type", [[b"regex"]]),
        ("guided_decoding_guide_type", [[b"\xff"]]),
    ],
)
def test_a_bad_value_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgumentError) as info:
        read(**{name: value})
    culprit = "guided_decoding_guide" if value == [[b"regex"]] else name
    assert str(info.value).startswith(f"Invalid argument: {culprit}: ")


def test_no_new_token_is_asked_for_beside_the_prompts_log_probs_only() -> None:
    request = read(request_output_len=0, return_prompt_log_probs=True)
    assert (request.max_new_tokens, request.returns_prompt_log_probs) == (0, True)
    with pytest.raises(InvalidArgumentError, match="request_output_len: 0 is below 1"):
        read(request_output_len=0, return_prompt_log_probs=False)


def test_a_salt_and_a_priority_reach_the_engine() -> None:
    request = read(cache_salt=2**64 - 1, priority=-3).to_engine(lambda event: None, None)
    assert (request.cache_salt, request.priority) == (2**64 - 1, -3)
    request = read(cache_salt=0).to_engine(lambda event: None, None)
    assert (request.cache_salt, request.priority) == (0, 0)
    assert read().to_engine(lambda event: None, None).cache_salt is None


UNSUPPORTED = {
    "encoder_input_features": [[[1.0]]],
    "encoder_output_lengths": 1,
    "draft_input_ids": [[1]],
    "decoder_input_ids": [[1]],
    "decoder_input_lengths": 1,
    "draft_logits": [[[1.0]]],
    "draft_acceptance_threshold": 0.5,
    "beam_width": 2,
    "runtime_top_p_min": 0.1,
    "runtime_top_p_decay": 0.9,
    "runtime_top_p_reset_ids": 3,
    "len_penalty": 0.5,
    "beam_search_diversity_rate": 0.5,
    "return_context_logits": True,
    "return_generation_logits": True,
    "prompt_embedding_table": [[[1.0]]],
    "prompt_table_extra_ids": [[1]],
    "prompt_vocab_size": 1,
    "cross_attention_mask": [[[True]]],
    "mrope_rotary_cos_sin": [[1.0]],
    "mrope_position_deltas": [[1]],
    "lora_task_id": 1,
    "lora_weights": [[[1.0]]],
    "lora_config": [[[1, 2, 3]]],
    "context_phase_params": [[1]],
    "skip_cross_attn_blocks": [[True]],
    "retention_token_range_starts": [[0]],
    "retention_token_range_ends": [[0]],
    "retention_token_range_priorities": [[1]],
    "retention_token_range_durations_ms": [[1]],
    "retention_decode_priority": [[1]],
    "retention_decode_duration_ms": [[1]],
    "lookahead_window_size": [[1]],
    "lookahead_ngram_size": [[1]],
    "lookahead_verification_set_size": [[1]],
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_the_engine_does_not_do_is_refused_by_name(name: str) -> None:
    with pytest.raises(UnsupportedTensorError) as info:
        read(**{name: UNSUPPORTED[name]})
    assert str(info.value) == f"Unsupported tensor: {name}"


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_an_empty_tensor_asks_for_nothing(name: str) -> None:
    wanted = tensors() | {name: np.zeros((1, 0), NUMPY[SPECS[name].datatype])}
    decode(wanted, VOCAB_SIZE, exclude_input_in_output=True)


@pytest.mark.parametrize(
    "neutral",
    [
        {"beam_width": 1, "len_penalty": 1.0, "early_stopping": True},
        {"return_context_logits": False, "runtime_top_p_decay": 1.0, "pad_id": 7},
    ],
)
def test_neutral_values_are_accepted(neutral: dict[str, Any]) -> None:
    read(**neutral)


def test_every_input_of_the_contract_is_read_or_refused_or_said_to_have_no_effect() -> None:
    read_by_decode = {
        "input_ids",
        "request_output_len",
        "end_id",
        "stop_words_list",
        "num_return_sequences",
        "bad_words_list",
        "embedding_bias",
        "temperature",
        "runtime_top_k",
        "runtime_top_p",
        "min_p",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "min_tokens",
        "seed",
        "return_log_probs",
        "num_top_log_probs",
        "return_perf_metrics",
        "return_num_input_tokens",
        "return_num_output_tokens",
        "exclude_input_in_output",
        "streaming",
        "stop",
        "guided_decoding_guide_type",
        "guided_decoding_guide",
        "return_prompt_log_probs",
        "cache_salt",
        "priority",
    }
    no_effect = {"input_lengths", "pad_id", "early_stopping"}
    assert read_by_decode | no_effect | UNSUPPORTED.keys() == SPECS.keys()


def test_stop_is_read_without_the_rest() -> None:
    assert is_stop({"stop": np.array([True])})
    assert not is_stop({"stop": np.array([False])})
    assert not is_stop({})


words = st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=4), max_size=5)


@given(words, st.integers(0, 3))
def test_word_lists_are_decoded_as_the_reference_encoder_writes_them(
    expected: list[list[int]], padding: int
) -> None:
    flat = [token_id for word in expected for token_id in word]
    ends = np.cumsum([len(word) for word in expected], dtype=int).tolist()
    width = max(1, len(flat), len(ends)) + padding
    rows = [flat + [0] * (width - len(flat)), ends + [-1] * (width - len(ends))]
    decoded = decode_words({"w": np.array([rows], np.int32)}, "w")
    assert decoded == tuple(tuple(word) for word in expected)
