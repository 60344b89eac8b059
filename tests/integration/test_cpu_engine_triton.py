"""The cpu kind inside a real Triton: its tensors on the wire, cancelling, metrics, unloading."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tritonclient.grpc import service_pb2

from build_engines.artefacts.artefact import Artefact
from frontend.triton.server import EmbeddedTriton, Ports
from tests.integration.counter import free_ports
from tests.integration.tensor_client import PLAIN, TensorClient
from triton_models.render import model_file, render_config

MODEL = "smollm2-135m-instruct"
PROMPT = [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198]
END_ID = 2


@pytest.fixture(scope="module")
def ports() -> Ports:
    return free_ports()


@pytest.fixture(scope="module")
def triton(
    artefact: Artefact, ports: Ports, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedTriton]:
    home: Path = tmp_path_factory.mktemp("cpu-engine")
    folder = home / "repository" / MODEL
    (folder / "1").mkdir(parents=True)
    limits = artefact.manifest.limits
    config = render_config(
        "cpu",
        {
            "model_name": MODEL,
            "artefact_dir": str(artefact.path),
            "variant": artefact.manifest.variant,
            "max_seq_len": limits.max_seq_len,
            "max_input_len": limits.max_input_len,
            "vocab_size": limits.vocab_size,
        },
    )
    (folder / "config.pbtxt").write_text(config, encoding="utf-8")
    source = model_file("cpu")
    assert source is not None
    shutil.copy(source, folder / "1" / "model.py")
    (home / "state").mkdir()
    (home / "state" / "loaded.json").write_text(json.dumps([MODEL]), encoding="utf-8")
    with EmbeddedTriton(home, ports) as triton:
        yield triton


@pytest.fixture
def client(triton: EmbeddedTriton, ports: Ports) -> Iterator[TensorClient]:
    client = TensorClient(ports, MODEL, PROMPT)
    yield client
    client.wait_idle()
    client.channel.close()


def test_a_stream_has_one_final_response_and_no_end_token(client: TensorClient) -> None:
    answer = client.infer(end_id=[[END_ID]])
    assert answer.is_final[:-1] == [False] * (len(answer.is_final) - 1)
    assert answer.is_final[-1]
    assert END_ID not in answer.token_ids()
    assert answer.responses[-1]["finish_reason"].tolist() == [[1]]
    assert "num_cached_tokens" in answer.responses[0]


def test_only_requested_outputs_are_sent(client: TensorClient) -> None:
    answer = client.infer(outputs=("output_ids", "sequence_length"), return_log_probs=[[True]])
    assert {name for r in answer.responses for name in r} == {"output_ids", "sequence_length"}


def test_streamed_and_whole_answers_have_the_same_tokens(client: TensorClient) -> None:
    whole = client.infer(streaming=[[False]])
    assert len(whole.responses) == 1
    assert whole.token_ids() == client.infer().token_ids()
    echoed = client.infer(streaming=[[False]], exclude_input_in_output=[[False]])
    assert echoed.token_ids() == PROMPT + whole.token_ids()


def test_all_that_can_be_asked_for_is_answered(client: TensorClient) -> None:
    answer = client.infer(
        return_log_probs=[[True]],
        num_top_log_probs=[[3]],
        return_perf_metrics=[[True]],
        return_num_input_tokens=[[True]],
        return_num_output_tokens=[[True]],
        request_output_len=[[4]],
    )
    last = answer.responses[-1]
    assert last["output_log_probs"].shape == (1, 1, 4)
    assert last["cum_log_probs"][0, 0] == pytest.approx(last["output_log_probs"].sum(), abs=1e-4)
    assert last["num_input_tokens"].tolist() == [[len(PROMPT)]]
    assert last["num_output_tokens"].tolist() == [[4]]
    assert last["first_token_time_ns"] >= last["first_scheduled_time_ns"]
    first = answer.responses[0]
    assert first["top_log_prob_ids"].shape == (1, 1, 3)
    assert first["top_log_prob_ids"][0, 0, 0] == first["output_ids"][0, 0, 0]


def test_log_probs_of_a_prompt_are_those_of_generating_it_token_by_token(
    client: TensorClient, artefact: Artefact
) -> None:
    tokenizer = Tokenizer.from_file(str(artefact.path / "tokenizer" / "tokenizer.json"))
    prompt = tokenizer.encode("The capital of France is Paris").ids
    answer = client.infer(
        input_ids=[prompt],
        request_output_len=[[0]],
        return_prompt_log_probs=[[True]],
        num_top_log_probs=[[5]],
    )
    (response,) = answer.responses
    assert answer.is_final == [True]
    assert response["finish_reason"].tolist() == [[2]]
    assert response["sequence_length"].tolist() == [[0]]
    log_probs = response["prompt_log_probs"][0]
    assert np.isfinite(log_probs.sum())
    assert log_probs.shape == (len(prompt),)
    assert response["prompt_top_log_probs"].shape == (1, len(prompt) - 1, 5)
    assert log_probs[0] == 0
    for index in range(1, len(prompt)):
        bias = np.zeros((1, artefact.manifest.limits.vocab_size), np.float32)
        bias[0, prompt[index]] = 1000  # log-probs are of the logits before it
        one = client.infer(
            input_ids=[prompt[:index]],
            request_output_len=[[1]],
            return_log_probs=[[True]],
            num_top_log_probs=[[5]],
            embedding_bias=bias,
        ).responses[0]
        assert one["output_ids"].tolist() == [[[prompt[index]]]]
        assert log_probs[index] == pytest.approx(one["output_log_probs"][0, 0, 0], abs=1e-3)
        top = response["prompt_top_log_probs"][0, index - 1]
        assert top == pytest.approx(one["top_log_probs"][0, 0], abs=1e-3)
        assert (
            response["prompt_top_log_prob_ids"][0, index - 1].tolist()
            == one["top_log_prob_ids"][0, 0].tolist()
        )


def test_requests_of_different_salts_share_no_cached_blocks(client: TensorClient) -> None:
    def num_cached(**values: Any) -> int:
        prompt = [*range(1000, 1100)]
        answer = client.infer(input_ids=[prompt], request_output_len=[[1]], **values)
        return int(answer.responses[0]["num_cached_tokens"][0, 0])

    assert [num_cached(cache_salt=[[salt]], priority=[[-1]]) for salt in (5, 2**63, 5)] == [
        0,
        0,
        96,
    ]
    assert num_cached() == 0


def test_several_sequences_end_with_one_final_response(client: TensorClient) -> None:
    answer = client.infer(num_return_sequences=[[3]], runtime_top_p=[[1.0]], seed=[[9]])
    assert {int(r["sequence_index"][0, 0]) for r in answer.responses} == {0, 1, 2}
    assert answer.is_final.count(True) == 1
    assert answer.is_final[-1]
    assert sum("finish_reason" in r for r in answer.responses) == 3


def test_a_grammar_is_kept(client: TensorClient) -> None:
    answer = client.infer(
        guided_decoding_guide_type=b"regex",
        guided_decoding_guide=rb"[0-9]{4}",
        end_id=[[END_ID]],
    )
    assert len(answer.token_ids()) == 4  # this tokenizer has one token a digit
    assert answer.responses[-1]["finish_reason"].tolist() == [[1]]


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"beam_width": [[2]]}, "Unsupported tensor: beam_width"),
        (
            {"request_output_len": [[0]]},
            "Invalid argument: request_output_len: 0 is below 1",
        ),
        ({"end_id": [[10**6]]}, "Invalid argument: end_id: 1000000 is above 49151"),
        (
            {"input_ids": [[1] * 8192]},
            "Prompt length (8192) exceeds maximum input length (8191).",
        ),
    ],
)
def test_a_refusal_keeps_its_wording(
    client: TensorClient, values: dict[str, Any], error: str
) -> None:
    assert client.infer(**values).error == error


def test_a_bad_grammar_is_an_error_of_its_own_request(client: TensorClient) -> None:
    answer = client.infer(guided_decoding_guide_type=b"regex", guided_decoding_guide=b"[0-9")
    assert answer.error is not None
    assert answer.error.startswith("Invalid argument: guided_decoding_guide: ")
    assert client.infer().error is None


def test_stop_ends_the_request_of_its_id(client: TensorClient) -> None:
    with ThreadPoolExecutor() as pool:
        running = pool.submit(client.infer, "a", PLAIN, request_output_len=[[4000]])
        while not client.gauges()["scheduled"]:
            time.sleep(0.01)
        stop = client.infer("a", stop=[[True]])
        answer = running.result(timeout=30)
    assert (stop.responses, stop.is_final) == ([{}], [True])
    assert answer.responses[-1]["finish_reason"].tolist() == [[4]]
    assert 0 < len(answer.token_ids()) < 4000


def test_a_client_that_leaves_is_out_of_the_batch_at_once(client: TensorClient) -> None:
    """The gauges are up to 50 ms old; the engine itself has 100 ms."""
    times = []
    for _ in range(5):
        call = client.start(outputs=PLAIN, request_output_len=[[4000]])
        for _ in range(10):
            next(call)
        time.sleep(0.1)
        assert client.gauges()["used"] > 0
        call.cancel()
        times.append(client.wait_idle())
    assert sorted(times)[2] < 0.15


def test_many_streams_at_once_are_answered_apart(client: TensorClient) -> None:
    prompts = [[1, 4093, 198, 300 + i] for i in range(40)]
    expected = [client.infer(outputs=PLAIN, input_ids=[p]).token_ids() for p in prompts[:5]]
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda p: client.infer(outputs=PLAIN, input_ids=[p]), prompts))
    assert [answer.token_ids() for answer in answers[:5]] == expected
    assert all(len(answer.token_ids()) == 16 for answer in answers)


def test_the_model_can_be_unloaded_while_it_works_and_loaded_again(client: TensorClient) -> None:
    control = service_pb2.RepositoryModelUnloadRequest(model_name=MODEL)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(client.infer, "u", PLAIN, request_output_len=[[400]])
        while not client.gauges()["scheduled"]:
            time.sleep(0.01)
        client.stub.RepositoryModelUnload(control)
        assert len(running.result(timeout=60).token_ids()) == 400
    client.stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name=MODEL))
    assert len(client.infer().token_ids()) == 16
