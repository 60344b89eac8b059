from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from frontend.errors import InvalidParameter
from frontend.triton import tensors
from frontend.triton.adapters import AdapterWeights
from frontend.triton.tensors import encode_request, param_of
from frontend.types import (
    GenerationRequest,
    Guide,
    GuideType,
    LoadedModel,
    LoraAdapter,
    ModelLimits,
    SamplingParams,
    ServedVersion,
)
from triton_models import contract

CPU = LoadedModel(
    name="m",
    variant="q8_0",
    limits=ModelLimits(max_seq_len=100, max_input_len=90, vocab_size=8),
    inputs=frozenset(spec.name for spec in (*contract.INPUTS, *contract.CPU_EXTRA_INPUTS)),
    outputs=frozenset(spec.name for spec in (*contract.OUTPUTS, *contract.CPU_EXTRA_OUTPUTS)),
)
TRTLLM = replace(
    CPU,
    inputs=frozenset(spec.name for spec in contract.INPUTS),
    outputs=frozenset(spec.name for spec in contract.OUTPUTS),
)
GREEDY = SamplingParams(temperature=0)
REQUEST = GenerationRequest(
    request_id="r1", model="m", prompt_token_ids=[5, 6], max_new_tokens=7, sampling=GREEDY
)
ADAPTER = LoraAdapter(name="pirate", task_id=2**63 + 5, directory="/a")
FORMATS = {"INT32": "i", "FP32": "f", "BOOL": "?", "UINT64": "Q"}


def encoded(
    request: GenerationRequest, model: LoadedModel = CPU, weights: AdapterWeights | None = None
) -> tuple[dict[str, tuple[list[int], object]], list[str]]:
    """Return name -> (shape, values) of the inputs, and the names of the outputs."""
    message = service_pb2.ModelInferRequest.FromString(encode_request(request, model, weights))
    assert (message.model_name, message.id) == (request.model, request.request_id)
    inputs: dict[str, tuple[list[int], object]] = {}
    for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True):
        values: object = raw
        if code := FORMATS.get(tensor.datatype):
            values = list(struct.unpack(f"<{len(raw) // struct.calcsize(code)}{code}", raw))
        inputs[tensor.name] = (list(tensor.shape), values)
    return inputs, [output.name for output in message.outputs]


def sampled(**values: object) -> dict[str, tuple[list[int], object]]:
    sampling = SamplingParams(**values)  # type: ignore[arg-type]
    return encoded(replace(REQUEST, sampling=sampling))[0]


def test_plain_greedy_request_sends_only_what_is_needed() -> None:
    inputs, outputs = encoded(REQUEST)
    assert inputs == {
        "input_ids": ([1, 2], [5, 6]),
        "input_lengths": ([1, 1], [2]),
        "request_output_len": ([1, 1], [7]),
        "streaming": ([1, 1], [True]),
        "runtime_top_k": ([1, 1], [1]),
    }
    assert outputs == ["output_ids", "sequence_length", "finish_reason", "num_cached_tokens"]
    assert encoded(REQUEST, TRTLLM)[1] == ["output_ids", "sequence_length"]


def test_a_seed_of_ours_is_not_sent_to_a_model_that_has_none() -> None:
    seedless = replace(CPU, inputs=CPU.inputs - {"seed"})
    request = replace(REQUEST, sampling=SamplingParams(temperature=0.5))
    assert "seed" in encoded(request)[0]
    assert "seed" not in encoded(request, seedless)[0]
    with pytest.raises(InvalidParameter) as caught:
        encoded(replace(request, sampling=SamplingParams(seed=3)), seedless)
    assert caught.value.param == "seed"


@pytest.mark.parametrize("values", [{"temperature": 0}, {"top_k": 1}, {"top_p": 0}])
def test_greedy_is_said_by_top_k_1_alone(values: dict[str, object]) -> None:
    inputs = sampled(**values)
    assert inputs["runtime_top_k"] == ([1, 1], [1])
    assert not {"temperature", "runtime_top_p", "seed", "min_p"} & set(inputs)


def test_neutral_sampling_still_says_top_p_and_draws_a_seed() -> None:
    first, second = sampled(), sampled()
    assert first["runtime_top_p"] == ([1, 1], [1.0])
    assert "temperature" not in first
    assert "runtime_top_k" not in first
    assert first["seed"] != second["seed"]


def test_sampling_values_are_sent() -> None:
    inputs = sampled(
        temperature=0.5,
        top_p=0.25,
        top_k=3,
        min_p=0.125,
        repetition_penalty=1.5,
        presence_penalty=-1,
        frequency_penalty=0.5,
        seed=-1,
        min_tokens=2,
    )
    sent = {name: values for name, (_, values) in inputs.items()}
    assert (
        sent.items()
        >= {
            "temperature": [0.5],
            "runtime_top_p": [0.25],
            "runtime_top_k": [3],
            "min_p": [0.125],
            "repetition_penalty": [1.5],
            "presence_penalty": [-1.0],
            "frequency_penalty": [0.5],
            "seed": [2**64 - 1],
            "min_tokens": [2],
        }.items()
    )


def test_bias_is_a_vector_over_the_vocabulary() -> None:
    inputs = sampled(temperature=0, logit_bias={0: -100.0, 7: 2.5})
    assert inputs["embedding_bias"] == ([1, 8], [-100.0, 0, 0, 0, 0, 0, 0, 2.5])


@pytest.mark.parametrize("token_id", [-1, 8])
def test_bias_outside_the_vocabulary_is_refused(token_id: int) -> None:
    with pytest.raises(InvalidParameter) as caught:
        sampled(temperature=0, logit_bias={token_id: 1.0})
    assert caught.value.param == "logit_bias"


def test_words_are_concatenated_with_their_end_offsets() -> None:
    inputs = sampled(temperature=0, bad_words=((10, 11), (12,)))
    assert inputs["bad_words_list"] == ([1, 2, 3], [10, 11, 12, 2, 3, -1])
    inputs = encoded(replace(REQUEST, stop_token_ids=(20, 21)))[0]
    assert inputs["stop_words_list"] == ([1, 2, 2], [20, 21, 1, 2])


def test_end_id_and_number_of_sequences_are_sent() -> None:
    inputs, outputs = encoded(replace(REQUEST, end_id=2, num_sequences=3))
    assert inputs["end_id"] == ([1, 1], [2])
    assert inputs["num_return_sequences"] == ([1, 1], [3])
    assert "sequence_index" in outputs


def test_log_probs_ask_for_their_outputs() -> None:
    inputs, outputs = encoded(
        replace(REQUEST, sampling=SamplingParams(temperature=0, num_log_probs=0))
    )
    assert inputs["return_log_probs"] == ([1, 1], [True])
    assert "num_top_log_probs" not in inputs
    assert "output_log_probs" in outputs
    assert "top_log_probs" not in outputs
    inputs, outputs = encoded(
        replace(REQUEST, sampling=SamplingParams(temperature=0, num_log_probs=2))
    )
    assert inputs["num_top_log_probs"] == ([1, 1], [2])
    assert {"top_log_probs", "top_log_prob_ids"} <= set(outputs)


def test_log_probs_of_the_prompt_ask_for_their_outputs() -> None:
    wanted = replace(REQUEST, returns_prompt_log_probs=True, max_new_tokens=0)
    inputs, outputs = encoded(wanted)
    assert inputs["return_prompt_log_probs"] == ([1, 1], [True])
    assert inputs["request_output_len"] == ([1, 1], [0])
    assert "prompt_log_probs" in outputs
    assert "prompt_top_log_probs" not in outputs
    sampling = SamplingParams(temperature=0, num_log_probs=2)
    inputs, outputs = encoded(replace(wanted, sampling=sampling))
    assert inputs["num_top_log_probs"] == ([1, 1], [2])
    assert {"prompt_top_log_probs", "prompt_top_log_prob_ids"} <= set(outputs)


def test_salt_and_priority_are_sent() -> None:
    inputs, _ = encoded(replace(REQUEST, cache_salt=2**64 - 1, priority=-5))
    assert inputs["cache_salt"] == ([1, 1], [2**64 - 1])
    assert inputs["priority"] == ([1, 1], [-5])
    assert encoded(replace(REQUEST, cache_salt=0))[0]["cache_salt"] == ([1, 1], [0])


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"returns_prompt_log_probs": True}, "logprobs"),
        ({"cache_salt": 1}, "cache_salt"),
        ({"priority": 1}, "priority"),
    ],
)
def test_what_only_our_engine_does_is_refused_elsewhere_by_its_field(
    values: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidParameter) as caught:
        encode_request(replace(REQUEST, **values), TRTLLM)
    assert caught.value.param == param


def test_guide_is_sent_as_length_prefixed_text() -> None:
    inputs = sampled(temperature=0, guide=Guide(type=GuideType.REGEX, text="é+"))
    assert inputs["guided_decoding_guide_type"] == ([1, 1], b"\5\0\0\0regex")
    assert inputs["guided_decoding_guide"] == ([1, 1], b"\3\0\0\0\xc3\xa9+")


@pytest.mark.parametrize(
    ("values", "param"),
    [({"min_p": 0.1}, "min_p"), ({"num_log_probs": 2}, "top_logprobs")],
)
def test_what_the_model_has_no_tensor_for_is_refused_by_its_field(
    values: dict[str, object], param: str
) -> None:
    request = replace(REQUEST, sampling=SamplingParams(**values))  # type: ignore[arg-type]
    with pytest.raises(InvalidParameter) as caught:
        encode_request(request, TRTLLM)
    assert caught.value.param == param
    assert caught.value.key == "unsupported"


def test_tensors_are_those_of_the_contract() -> None:
    inputs = {spec.name: spec for spec in (*contract.INPUTS, *contract.CPU_EXTRA_INPUTS)}
    outputs = {spec.name: spec for spec in (*contract.OUTPUTS, *contract.CPU_EXTRA_OUTPUTS)}
    for tensor in tensors.INPUTS:
        assert tensor.datatype == inputs[tensor.name].datatype
        assert tensor.param or tensor is tensors.STOP  # which no field of a request asks for
    for tensor in tensors.OUTPUTS:
        assert tensor.datatype == outputs[tensor.name].datatype
    required = {name for name, spec in inputs.items() if spec.required}
    assert required <= set(encoded(REQUEST)[0])


def test_an_adapter_is_its_task_id_and_keeps_cached_beginnings_apart() -> None:
    inputs, _ = encoded(replace(REQUEST, adapter=ADAPTER))
    assert inputs["lora_task_id"] == ([1, 1], [2**63 + 5])
    assert "lora_weights" not in inputs
    salts = {
        str(encoded(replace(REQUEST, adapter=adapter, cache_salt=salt))[0].get("cache_salt"))
        for adapter in (None, ADAPTER, replace(ADAPTER, task_id=7))
        for salt in (None, 3)
    }
    assert len(salts) == 6
    assert "cache_salt" not in encoded(replace(REQUEST, adapter=ADAPTER), TRTLLM)[0]


def test_a_request_names_the_load_that_it_was_prepared_for() -> None:
    served = ServedVersion(number=3, tokenizer_hash="t")
    message = service_pb2.ModelInferRequest.FromString(
        encode_request(replace(REQUEST, prepared_for=served), CPU)
    )
    assert message.model_version == "3"


def test_shapes_are_those_of_the_contract() -> None:
    sampling = SamplingParams(
        temperature=0.5,
        top_k=2,
        min_p=0.1,
        repetition_penalty=2,
        presence_penalty=1,
        frequency_penalty=1,
        min_tokens=1,
        logit_bias={1: 1},
        bad_words=((1, 2),),
        num_log_probs=1,
        guide=Guide(type=GuideType.JSON),
    )
    request = replace(
        REQUEST,
        sampling=sampling,
        end_id=1,
        num_sequences=2,
        stop_token_ids=(3,),
        returns_prompt_log_probs=True,
        cache_salt=1,
        priority=1,
        adapter=ADAPTER,
        draft_token_ids=(4, 5),
    )
    weights = AdapterWeights(shape=(2, 3), weights=bytes(12), config=bytes(24))
    inputs = encoded(request, weights=weights)[0]
    assert set(inputs) == {tensor.name for tensor in tensors.INPUTS} - {tensors.STOP.name}
    specs = {spec.name: spec for spec in (*contract.INPUTS, *contract.CPU_EXTRA_INPUTS)}
    for name, (shape, _) in inputs.items():
        dims = specs[name].dims
        assert shape[0] == 1
        assert len(shape) == 1 + len(dims)
        assert all(dim in (-1, size) for dim, size in zip(dims, shape[1:], strict=True))


def test_field_of_a_tensor_is_known_and_a_foreign_one_names_itself() -> None:
    assert param_of("runtime_top_p") == "top_p"
    assert param_of("draft_logits") == "draft_logits"
