"""Events become the output tensors of the contract."""

from __future__ import annotations

import numpy as np

from tests.unit.triton_models.test_wire import read
from triton_models.contract import CPU_EXTRA_OUTPUTS, OUTPUTS, FinishReason
from triton_models.encoder import ResponseEncoder
from triton_models.request import PromptLogProbs, SequenceStats, TokenEvent

STATS = SequenceStats(
    num_cached_tokens=64,
    num_reused_blocks=2,
    num_new_blocks=3,
    arrival_time_ns=1,
    first_scheduled_time_ns=2,
    first_token_time_ns=3,
    last_token_time_ns=4,
)
PROMPT_LOG_PROBS = PromptLogProbs(
    log_probs=np.array([0, -1, -2], np.float32),
    top_ids=np.array([[2], [9]], np.int32),
    top_log_probs=np.array([[-1], [-0.5]], np.float32),
)
NUMPY_OF = {"INT32": np.int32, "INT64": np.int64, "FP32": np.float32}


def test_a_streamed_token_is_a_delta() -> None:
    encoder = ResponseEncoder(read(streaming=True))
    outputs = encoder.encode([TokenEvent(sequence_index=0, token_id=7)])
    assert {name: array.tolist() for name, array in outputs.items()} == {
        "output_ids": [[[7]]],
        "sequence_length": [[1]],
    }


def test_tokens_that_came_together_are_one_response() -> None:
    encoder = ResponseEncoder(read(streaming=True))
    outputs = encoder.encode(
        [
            TokenEvent(sequence_index=0, token_id=7),
            TokenEvent(sequence_index=0, token_id=8),
            TokenEvent(sequence_index=0, finish_reason=FinishReason.END_ID, is_final=True),
        ]
    )
    assert outputs["output_ids"].tolist() == [[[7, 8]]]
    assert outputs["sequence_length"].tolist() == [[2]]
    assert outputs["finish_reason"].tolist() == [[1]]


def test_an_end_without_a_token_has_empty_output_ids() -> None:
    encoder = ResponseEncoder(read(streaming=True))
    event = TokenEvent(sequence_index=0, finish_reason=FinishReason.CANCELLED, is_final=True)
    outputs = encoder.encode([event])
    assert outputs["output_ids"].shape == (1, 1, 0)
    assert outputs["sequence_length"].tolist() == [[0]]
    assert outputs["finish_reason"].tolist() == [[4]]


def test_log_probs_grow_and_top_log_probs_are_deltas() -> None:
    encoder = ResponseEncoder(read(streaming=True, return_log_probs=True, num_top_log_probs=2))

    def event(token_id: int, log_prob: float, cum: float) -> TokenEvent:
        return TokenEvent(
            sequence_index=0,
            token_id=token_id,
            log_prob=log_prob,
            cum_log_prob=cum,
            top_ids=np.array([token_id, 1], np.int32),
            top_log_probs=np.array([log_prob, -9], np.float32),
        )

    encoder.encode([event(7, -0.5, -0.5)])
    outputs = encoder.encode([event(8, -0.25, -0.75)])
    assert outputs["output_log_probs"].tolist() == [[[-0.5, -0.25]]]
    assert outputs["cum_log_probs"].tolist() == [[-0.75]]
    assert outputs["top_log_prob_ids"].tolist() == [[[8, 1]]]
    assert outputs["top_log_probs"].tolist() == [[[-0.25, -9]]]


def test_sequences_are_counted_apart_and_tagged() -> None:
    encoder = ResponseEncoder(
        read(streaming=True, num_return_sequences=2, return_num_output_tokens=True)
    )
    encoder.encode([TokenEvent(sequence_index=0, token_id=7)])
    encoder.encode([TokenEvent(sequence_index=0, token_id=7)])
    outputs = encoder.encode([TokenEvent(sequence_index=1, token_id=7)])
    assert outputs["sequence_index"].tolist() == [[1]]
    assert outputs["num_output_tokens"].tolist() == [[1]]


def test_the_prompt_stands_in_front_only_if_asked_and_not_streamed() -> None:
    event = TokenEvent(sequence_index=0, token_id=7)
    whole = ResponseEncoder(read(exclude_input_in_output=False)).encode([event])
    streamed = ResponseEncoder(read(exclude_input_in_output=False, streaming=True)).encode([event])
    assert whole["output_ids"].tolist() == [[[1, 2, 3, 7]]]
    assert whole["sequence_length"].tolist() == [[4]]
    assert streamed["output_ids"].tolist() == [[[7]]]


def test_cached_tokens_come_first_and_perf_metrics_last() -> None:
    encoder = ResponseEncoder(read(streaming=True, return_perf_metrics=True))
    first = encoder.encode([TokenEvent(sequence_index=0, token_id=7, stats=STATS)])
    end = TokenEvent(
        sequence_index=0, token_id=8, stats=STATS, finish_reason=FinishReason.LENGTH, is_final=True
    )
    last = encoder.encode([end])
    assert first["num_cached_tokens"].tolist() == [[64]]
    assert "arrival_time_ns" not in first
    assert "num_cached_tokens" not in last
    assert last["kv_cache_alloc_total_blocks"].tolist() == [[5]]
    assert last["last_token_time_ns"].tolist() == [[4]]


def test_the_prompts_log_probs_come_with_the_first_response() -> None:
    encoder = ResponseEncoder(read(streaming=True, return_prompt_log_probs=True))
    event = TokenEvent(sequence_index=0, token_id=7, prompt_log_probs=PROMPT_LOG_PROBS)
    first = encoder.encode([event, TokenEvent(sequence_index=0, token_id=8)])
    assert first["prompt_log_probs"].tolist() == [[0, -1, -2]]
    assert first["prompt_top_log_prob_ids"].tolist() == [[[2], [9]]]
    assert first["prompt_top_log_probs"].tolist() == [[[-1], [-0.5]]]
    second = encoder.encode([TokenEvent(sequence_index=0, token_id=9)])
    assert second.keys() == {"output_ids", "sequence_length"}


def test_the_prompts_log_probs_without_alternatives_are_one_tensor() -> None:
    none = PromptLogProbs(
        log_probs=np.zeros(1, np.float32),
        top_ids=np.zeros((0, 0), np.int32),
        top_log_probs=np.zeros((0, 0), np.float32),
    )
    end = TokenEvent(
        sequence_index=0,
        finish_reason=FinishReason.LENGTH,
        is_final=True,
        prompt_log_probs=none,
    )
    outputs = ResponseEncoder(read(return_prompt_log_probs=True)).encode([end])
    assert outputs["prompt_log_probs"].tolist() == [[0]]
    assert "prompt_top_log_probs" not in outputs


def test_all_outputs_have_the_datatype_and_rank_of_the_contract() -> None:
    request = read(
        streaming=True,
        num_return_sequences=2,
        return_log_probs=True,
        num_top_log_probs=1,
        return_perf_metrics=True,
        return_num_input_tokens=True,
        return_num_output_tokens=True,
        return_prompt_log_probs=True,
    )
    event = TokenEvent(
        sequence_index=1,
        token_id=7,
        stats=STATS,
        finish_reason=FinishReason.LENGTH,
        top_ids=np.array([1], np.int32),
        top_log_probs=np.array([-1], np.float32),
        prompt_log_probs=PROMPT_LOG_PROBS,
    )
    specs = {spec.name: spec for spec in OUTPUTS + CPU_EXTRA_OUTPUTS}
    outputs = ResponseEncoder(request).encode([event])
    never = {"context_logits", "generation_logits", "batch_index", "context_phase_params"}
    assert outputs.keys() == specs.keys() - never
    for name, array in outputs.items():
        assert array.dtype == NUMPY_OF[specs[name].datatype], name
        assert array.ndim == len(specs[name].dims) + 1, name
