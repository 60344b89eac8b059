"""The llm_api kind inside a real Triton, on the stand-in for TensorRT-LLM's LLM API."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from build_engines.llm_api.recipe import LlmApiRecipe
from build_engines.pipeline import build
from build_engines.spec import PathSource, Spec
from build_engines.variants import Lora, VariantOptions
from frontend.errors import (
    ContextLengthExceeded,
    EngineUnavailable,
    GenerationFailed,
    InvalidParameter,
    ModelLoadFailed,
    ServerOverloaded,
)
from frontend.triton.client import TritonClient
from frontend.triton.failures import error_of_message
from frontend.types import (
    FinishReason,
    GenerationRequest,
    Guide,
    GuideType,
    LoadedModel,
    SamplingParams,
    TokenChunk,
)
from tests.fakes.gpu_artefacts import (
    END_ID,
    LLM_OPTIONS,
    MAX_SEQ_LEN,
    VOCAB_SIZE,
    publish_llm_api,
)
from tests.fakes.tokenizers import byte_level_tokenizer, write_tokenizer
from tests.integration.stand_ins import StandIns
from tests.integration.tensor_client import PLAIN, Answer, TensorClient
from tests.unit.build_engines.tensorrt_fakes import ROOMY, verify_nothing, write_checkpoint
from tests.unit.build_engines.test_lora import write_peft

MODEL = "llm"
PROMPT = [40, 41, 42, 43, 44]
FAIL_ON, DIE_ON = 200, 201
ADAPTERS = ("sql", "poem")
OPTIONS = {
    **LLM_OPTIONS,
    "lora_config": {"lora_dir": [], "max_lora_rank": 8, "max_loras": 2, "max_cpu_loras": 2},
}


@pytest.fixture(scope="module")
def loaded(stand_ins: StandIns) -> LoadedModel:
    script = {"fail_on": FAIL_ON, "die_on": DIE_ON, "tokens_per_step": 2, "step_s": 0.002}
    artefact = publish_llm_api(
        stand_ins.home, MODEL, options=OPTIONS, script=script, adapters=ADAPTERS
    )
    return stand_ins.load(artefact)


@pytest.fixture
def client(stand_ins: StandIns, loaded: LoadedModel) -> Iterator[TensorClient]:
    client = stand_ins.client(MODEL, PROMPT)
    yield client
    client.wait_idle()
    client.channel.close()


def reason_of(answer: Answer) -> int:
    return int(answer.responses[-1]["finish_reason"][0, 0])


def biased(*token_ids: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    bias = np.zeros((1, VOCAB_SIZE), np.float32)
    bias[0, list(token_ids)] = 1000
    return bias


def text_of(answer: Answer) -> str:
    return byte_level_tokenizer().decode(answer.token_ids())


def test_a_stream_brings_each_token_once_and_one_final_response(client: TensorClient) -> None:
    answer = client.infer()
    assert len(answer.token_ids()) == 16
    assert answer.is_final == [False] * (len(answer.is_final) - 1) + [True]
    assert reason_of(answer) == 2
    assert len(answer.responses) > 1
    whole = client.infer(streaming=[[False]])
    assert (len(whole.responses), whole.token_ids()) == (1, answer.token_ids())


def test_the_end_token_ends_the_answer_and_is_not_in_it(client: TensorClient) -> None:
    answer = client.infer(end_id=[[END_ID]], embedding_bias=biased(END_ID))
    assert (answer.token_ids(), reason_of(answer)) == ([], 1)
    longer = client.infer(end_id=[[END_ID]], embedding_bias=biased(END_ID), min_tokens=[[3]])
    assert (len(longer.token_ids()), reason_of(longer)) == (3, 1)
    endless = client.infer(embedding_bias=biased(END_ID))
    assert endless.token_ids() == [END_ID] * 16


def test_stop_words_of_any_length_are_emitted_and_end_it(client: TensorClient) -> None:
    token_ids = client.infer().token_ids()
    one = client.infer(stop_words_list=[[token_ids[4:5], [1]]])
    end = token_ids.index(token_ids[4]) + 1
    assert (one.token_ids(), reason_of(one)) == (token_ids[:end], 3)
    three = client.infer(stop_words_list=[[token_ids[4:7], [3, -1, -1]]])
    assert (three.token_ids(), reason_of(three)) == (token_ids[:7], 3)


def test_log_probs_of_the_chosen_and_of_the_likeliest(client: TensorClient) -> None:
    answer = client.infer(return_log_probs=[[True]], num_top_log_probs=[[3]])
    last = answer.responses[-1]
    assert last["output_log_probs"].shape == (1, 1, 16)
    assert last["cum_log_probs"][0, 0] == pytest.approx(last["output_log_probs"].sum(), abs=1e-3)
    top_ids = np.concatenate([one["top_log_prob_ids"][0] for one in answer.responses])
    tops = np.concatenate([one["top_log_probs"][0] for one in answer.responses])
    assert top_ids[:, 0].tolist() == answer.token_ids()  # greedy
    assert tops[:, 0] == pytest.approx(last["output_log_probs"][0, 0])
    assert (np.diff(tops, axis=1) <= 0).all()


def test_log_probs_of_a_chosen_token_outside_the_likeliest(client: TensorClient) -> None:
    answer = client.infer(
        return_log_probs=[[True]], num_top_log_probs=[[1]], embedding_bias=biased(7)
    )
    assert answer.token_ids() == [7] * 16
    chosen = answer.responses[-1]["output_log_probs"][0, 0]
    tops = np.concatenate([one["top_log_probs"][0] for one in answer.responses])
    assert (chosen < tops[:, 0]).all()


def test_sequences_end_each_by_itself(client: TensorClient) -> None:
    answer = client.infer(num_return_sequences=[[3]], runtime_top_p=[[1.0]], end_id=[[END_ID]])
    assert {int(r["sequence_index"][0, 0]) for r in answer.responses} == {0, 1, 2}
    assert sum("finish_reason" in r for r in answer.responses) == 3
    assert answer.is_final.count(True) == 1
    assert answer.is_final[-1]
    assert answer.token_ids(0) != answer.token_ids(1)


def test_greedy_sequences_are_alike(client: TensorClient) -> None:
    answer = client.infer(num_return_sequences=[[2]])
    assert answer.token_ids(0) == answer.token_ids(1) == client.infer().token_ids()


def test_all_figures_that_can_be_asked_for_are_there(client: TensorClient) -> None:
    answer = client.infer(
        input_ids=[[9] * 70],
        return_perf_metrics=[[True]],
        return_num_input_tokens=[[True]],
        return_num_output_tokens=[[True]],
    )
    last = answer.responses[-1]
    assert (last["num_input_tokens"][0, 0], last["num_output_tokens"][0, 0]) == (70, 16)
    assert last["kv_cache_alloc_total_blocks"][0, 0] == 3
    assert last["arrival_time_ns"] <= last["first_token_time_ns"] < last["last_token_time_ns"]


def test_cached_prompts_are_shared_within_a_salt(client: TensorClient) -> None:
    def num_cached(**values: Any) -> int:
        answer = client.infer(input_ids=[[*range(100)]], request_output_len=[[1]], **values)
        return int(answer.responses[0]["num_cached_tokens"][0, 0])

    assert [num_cached(cache_salt=[[salt]]) for salt in (5, 6, 5)] == [0, 0, 96]


def test_guides_truly_constrain(client: TensorClient) -> None:
    def guided(guide_type: bytes, guide: bytes) -> str:
        return text_of(
            client.infer(
                guided_decoding_guide_type=guide_type,
                guided_decoding_guide=guide,
                end_id=[[END_ID]],
                request_output_len=[[60]],
            )
        )

    assert re.fullmatch(r"[0-9]{4}", guided(b"regex", rb"[0-9]{4}"))
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    closed = schema | {"additionalProperties": False}
    assert json.loads(guided(b"json_schema", json.dumps(closed).encode()))["ok"] in (True, False)
    assert guided(b"ebnf_grammar", b'start: "yes" | "no"') in ("yes", "no")
    answer = client.infer(guided_decoding_guide_type=b"haiku", guided_decoding_guide=b"x")
    assert answer.error == "Invalid argument: guided_decoding_guide_type: unknown: 'haiku'"


def test_adapters_change_the_answer_and_unknown_ones_are_refused(client: TensorClient) -> None:
    plain = client.infer().token_ids()
    answers = [client.infer(lora_task_id=[[2**63 + n]]).token_ids() for n in range(2)]
    assert plain not in answers
    assert answers[0] != answers[1]
    assert client.infer(lora_task_id=[[2**63]]).token_ids() == answers[0]
    error = client.infer(lora_task_id=[[7]]).error
    assert error is not None
    assert error.startswith("Invalid argument: lora_task_id: 7 is not an adapter here")


def test_what_the_sampler_would_ignore_is_refused_by_triton_itself(
    client: TensorClient, loaded: LoadedModel
) -> None:
    ignored = {"repetition_penalty", "presence_penalty", "min_p", "seed", "bad_words_list"}
    assert not ignored & loaded.inputs
    error = client.infer(presence_penalty=[[1.0]]).error
    assert error is not None
    assert "unexpected inference input 'presence_penalty'" in error


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"input_ids": [[1] * MAX_SEQ_LEN]}, ContextLengthExceeded(num_tokens=512, max_tokens=511)),
        ({"num_return_sequences": [[65]]}, InvalidParameter),
        ({"request_output_len": [[0]]}, InvalidParameter),
    ],
)
def test_refusals_are_mapped(client: TensorClient, values: dict[str, Any], error: Any) -> None:
    text = client.infer(**values).error
    assert text is not None
    mapped = error_of_message(text, MODEL)
    if isinstance(error, type):
        assert isinstance(mapped, error)
    else:
        assert (type(mapped), str(mapped)) == (type(error), str(error))


def test_more_than_the_context_holds_is_cut(client: TensorClient) -> None:
    answer = client.infer(input_ids=[[5] * (MAX_SEQ_LEN - 10)], request_output_len=[[4000]])
    assert (len(answer.token_ids()), reason_of(answer)) == (10, 2)


def test_one_requests_trouble_leaves_the_others(client: TensorClient) -> None:
    with ThreadPoolExecutor() as pool:
        others = [pool.submit(client.infer, request_output_len=[[100]]) for _ in range(4)]
        broken = client.infer(input_ids=[[FAIL_ON, 1, 2]], request_output_len=[[100]])
        answers = [other.result(timeout=30) for other in others]
    assert broken.error == "TensorRT-LLM: the request ran into trouble"
    assert isinstance(error_of_message(broken.error, MODEL), GenerationFailed)
    assert [len(answer.token_ids()) for answer in answers] == [100] * 4


def test_stop_ends_the_request_of_its_id(client: TensorClient) -> None:
    with ThreadPoolExecutor() as pool:
        running = pool.submit(client.infer, "a", PLAIN, request_output_len=[[490]])
        while not client.gauges()["active"]:
            time.sleep(0.005)
        stop = client.infer("a", stop=[[True]])
        answer = running.result(timeout=30)
    assert (stop.responses, stop.is_final) == ([{}], [True])
    assert reason_of(answer) == 4
    assert len(answer.token_ids()) < 490


@pytest.mark.parametrize("how", ["stop", "leave"])
def test_a_cancelled_request_is_aborted_in_the_llm(stand_ins: StandIns, how: str) -> None:
    """The stand-in has one place here, which the cancelled request would hold for a minute."""
    name = f"single-{how}"
    options = {**LLM_OPTIONS, "max_batch_size": 1}
    stand_ins.load(publish_llm_api(stand_ins.home, name, options=options, script={"step_s": 0.12}))
    client = stand_ins.client(name, PROMPT)
    call = client.start("long", PLAIN, request_output_len=[[500]])
    next(call)
    if how == "stop":
        client.infer("long", stop=[[True]])
    else:
        call.cancel()
    begun = time.monotonic()
    assert len(client.infer(request_output_len=[[2]]).token_ids()) == 2
    assert time.monotonic() - begun < 20
    client.channel.close()


def test_a_dead_llm_fails_what_runs_and_is_started_again(client: TensorClient) -> None:
    with ThreadPoolExecutor() as pool:
        other = pool.submit(client.infer, request_output_len=[[400]])
        time.sleep(0.05)
        fatal = client.infer(input_ids=[[DIE_ON, 1]])
        errors = [fatal.error, other.result(timeout=30).error]
    for error in errors:
        assert error is not None
        assert isinstance(error_of_message(error, MODEL), EngineUnavailable)
    deadline = time.monotonic() + 10
    while client.infer().error is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_sixty_four_requests_run_together(stand_ins: StandIns) -> None:
    """The stand-in makes no token before all have come: with one that waited, none would end."""
    artefact = publish_llm_api(stand_ins.home, "together", script={"start_together": 64})
    stand_ins.load(artefact)
    client = stand_ins.client("together", PROMPT)
    prompts = [[20, 21, 22, 60 + number] for number in range(64)]
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda one: client.infer(outputs=PLAIN, input_ids=[one]), prompts))
    assert [len(answer.token_ids()) for answer in answers] == [16] * 64
    assert len({tuple(answer.token_ids()) for answer in answers}) == 64
    client.channel.close()


def test_an_option_that_the_api_does_not_have_is_told_by_the_load(stand_ins: StandIns) -> None:
    artefact = publish_llm_api(
        stand_ins.home, "misspelt", options={**LLM_OPTIONS, "max_batchsize": 3}
    )
    with pytest.raises(ModelLoadFailed, match="LLM got invalid argument: max_batchsize"):
        stand_ins.load(artefact)


def test_the_other_sampler_takes_penalties_and_seeds_and_has_no_alternatives(
    stand_ins: StandIns,
) -> None:
    options = {**LLM_OPTIONS, "sampler_type": "TRTLLMSampler"}
    model = stand_ins.load(publish_llm_api(stand_ins.home, "cpp-sampler", options=options))
    assert "num_top_log_probs" not in model.inputs
    assert "top_log_probs" not in model.outputs
    client = stand_ins.client("cpp-sampler", PROMPT)
    plain = client.infer(embedding_bias=biased(7)).token_ids()
    penalized = client.infer(embedding_bias=biased(7), presence_penalty=[[2000.0]]).token_ids()
    banned = client.infer(embedding_bias=biased(7), bad_words_list=[[[7], [1]]]).token_ids()
    assert (plain.count(7), penalized.count(7), banned.count(7)) == (16, 1, 0)
    seeded = [client.infer(runtime_top_p=[[1.0]], seed=[[seed]]).token_ids() for seed in (1, 2, 1)]
    assert seeded[0] == seeded[2] != seeded[1]
    words = client.infer(bad_words_list=[[[7, 8], [2, -1]]])
    assert words.error is not None
    assert words.error.startswith("Invalid argument: bad_words_list: ")
    client.channel.close()


async def test_the_frontends_own_client_is_served(stand_ins: StandIns, loaded: LoadedModel) -> None:
    client = TritonClient(stand_ins.address)

    async def ask(**values: Any) -> list[TokenChunk]:
        request = GenerationRequest(
            request_id=f"own-{time.monotonic_ns()}",
            model=MODEL,
            prompt_token_ids=PROMPT,
            max_new_tokens=12,
            end_id=END_ID,
            **values,
        )
        async with aclosing(client.stream(request)) as chunks:
            return [chunk async for chunk in chunks]

    try:
        sampled = await ask(sampling=SamplingParams(temperature=0.7, num_log_probs=2))
        assert sum(len(chunk.token_ids) for chunk in sampled) <= 12
        assert sampled[-1].finish_reason in (FinishReason.LENGTH, FinishReason.STOP)
        guide = Guide(type=GuideType.REGEX, text="[a-c]{3}")
        guided = await ask(sampling=SamplingParams(guide=guide))
        assert sum(len(chunk.token_ids) for chunk in guided) == 3
        with pytest.raises(InvalidParameter, match="seed"):
            await ask(sampling=SamplingParams(seed=7))
    finally:
        await client.close()


def test_a_full_queue_is_an_overload_until_clients_leave(stand_ins: StandIns) -> None:
    options = {**LLM_OPTIONS, "max_batch_size": 1}
    artefact = publish_llm_api(
        stand_ins.home, "narrow", options=options, script={"start_together": 1000}
    )
    stand_ins.load(artefact, max_queue_size=2)
    client = stand_ins.client("narrow", PROMPT)
    calls = [client.start(f"narrow-{number}") for number in range(3)]
    while client.gauges()["active"] < 3:
        time.sleep(0.01)
    error = client.infer().error
    assert error is not None
    assert isinstance(error_of_message(error, "narrow"), ServerOverloaded)
    for call in calls:
        call.cancel()
    client.wait_idle()  # none of them would ever end by itself
    client.channel.close()


def test_a_built_artefact_is_served_with_its_adapter(stand_ins: StandIns, tmp_path: Path) -> None:
    """From a checkpoint to answers: built by the pipeline, rendered and loaded by the frontend."""
    sizes = {"vocab_size": VOCAB_SIZE, "eos_token_id": END_ID, "max_position_embeddings": 512}
    checkpoint = write_checkpoint(tmp_path / "checkpoint", sizes)
    write_tokenizer(checkpoint)
    modules = ["q_proj", "v_proj", "gate_proj", "down_proj"]
    adapter = write_peft(tmp_path / "sql", target_modules=modules)
    lora = Lora(max_rank=8, target_modules=(), adapters={"sql": str(adapter)})
    spec = Spec(
        name="built",
        source=PathSource(path=str(checkpoint)),
        lora=lora,
        variants={"bf16": VariantOptions(kind="llm_api")},
    )
    recipe = LlmApiRecipe(gpus=list, verifying=verify_nothing)
    artefact = build(spec, "bf16", stand_ins.home, recipes={"llm_api": recipe}, machine=ROOMY)
    model = stand_ins.load(artefact)
    assert {"lora_task_id", "guided_decoding_guide"} <= model.inputs
    assert model.limits.max_seq_len == 512
    client = stand_ins.client("built", PROMPT)
    task_id = artefact.manifest.adapters["sql"].task_id
    plain, adapted = client.infer(), client.infer(lora_task_id=[[task_id]])
    assert (plain.error, adapted.error) == (None, None)
    assert plain.token_ids() != adapted.token_ids()
    client.channel.close()
