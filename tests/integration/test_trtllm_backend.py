"""Rendered tensorrt_llm/config.pbtxt files in a real Triton, whose backend is a stand-in.

Two things are shown: that the stand-in does what NVIDIA's C++ backend does, table by table of what
its sources say, and that our frontend is served by it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest

from build_engines.artefacts.artefact import DraftingFacts, EngineFacts
from frontend.errors import (
    ContextLengthExceeded,
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
    MAX_SEQ_LEN,
    VOCAB_SIZE,
    engine_config,
    publish_tensorrt,
)
from tests.fakes.tokenizers import byte_level_tokenizer
from tests.fakes.trtllm_backend.config import DRAFTING_MODES
from tests.integration.stand_ins import StandIns
from tests.integration.tensor_client import Answer, TensorClient
from triton_models.contract import INPUTS, OUTPUTS
from triton_models.render import Value, render_config

MODEL = "engine"
PROMPT = [40, 41, 42, 43, 44]
GREEDY: dict[str, Any] = {"runtime_top_k": [[1]]}
LORA = {
    "lora_config": {"lora_target_modules": ["attn_qkv"], "max_lora_rank": 8},
    "plugin_config": {"lora_plugin": "auto", "use_paged_context_fmha": True},
}
TREE = [[0], [0, 0], [1]]
# The six promised models: the contexts that their engines are built for, and a variant each whose
# config.pbtxt differs from the others'
SIX = {
    "qwen-7b-chat": ("int4_awq", 8192, EngineFacts(max_lora_rank=16)),
    "qwen-14b-chat": ("int8_sq", 2048, EngineFacts(has_chunked_context=False, has_kv_reuse=False)),
    "gemma-7b": ("bf16", 8192, EngineFacts(attention_windows=[512, 512, 8192])),
    "gemma-2b": ("fp8", 8192, EngineFacts(max_batch_size=128, kv_cache="fp8")),
    "llama-2-7b-chat": (
        "w4a8_awq",
        4096,
        EngineFacts(drafting=DraftingFacts(mode="medusa", max_draft_len=3, tree=TREE)),
    ),
    "chatglm3-6b": (
        "int8_wo",
        8192,
        EngineFacts(drafting=DraftingFacts(mode="lookahead", max_draft_len=7, lookahead=[7, 7, 7])),
    ),
}


@pytest.fixture(scope="module")
def loaded(stand_ins: StandIns) -> LoadedModel:
    return stand_ins.load(
        publish_tensorrt(stand_ins.home, MODEL, config=engine_config(**LORA)), max_queue_size=8
    )


@pytest.fixture
def client(stand_ins: StandIns, loaded: LoadedModel) -> Iterator[TensorClient]:
    client = stand_ins.client(MODEL, PROMPT)
    yield client
    client.channel.close()


@pytest.fixture(scope="module")
def narrow(stand_ins: StandIns) -> str:
    """A model for one request at once, and one that waits."""
    name = "narrow-engine"
    artefact = publish_tensorrt(
        stand_ins.home,
        name,
        config=engine_config(max_batch_size=1),
        engine=EngineFacts(max_batch_size=1),
    )
    stand_ins.load(artefact, max_queue_size=1)
    return name


def write_model(stand_ins: StandIns, name: str, **values: Value) -> str:
    """A folder of the repository whose values are the test's, on the engine of MODEL."""
    artefact = next((stand_ins.home / "models" / MODEL).glob("*/*/engine")).parent
    base: Mapping[str, Value] = {
        "model_name": name,
        "variant": "fp16",
        "artefact_dir": str(artefact),
        "max_seq_len": MAX_SEQ_LEN,
        "max_input_len": MAX_SEQ_LEN - 1,
        "vocab_size": VOCAB_SIZE,
        "engine_dir": str(artefact / "engine"),
        "tokenizer_dir": str(artefact / "tokenizer"),
        "xgrammar_tokenizer_info_path": str(artefact / "xgrammar_tokenizer_info.json"),
    }
    return render_config("tensorrt_llm", {**base, **values})


def load_text(stand_ins: StandIns, name: str, config: str) -> None:
    folder = stand_ins.home / "repository" / name
    (folder / "1").mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(config)

    async def load() -> None:
        client = TritonClient(stand_ins.address)
        try:
            await client.rpc.load_model(name)
        finally:
            await client.close()

    asyncio.run(load())


def biased(*token_ids: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    bias = np.zeros((1, VOCAB_SIZE), np.float32)
    bias[0, list(token_ids)] = 1000
    return bias


def error_of(answer: Answer) -> str:
    assert answer.error is not None
    return answer.error


# ---- what is refused when a model is loaded (§2.1, §2.4)


@pytest.mark.parametrize("key", ["tokenizer_dir", "guided_decoding_backend",
                                 "xgrammar_tokenizer_info_path"])  # fmt: skip
def test_parameters_2_4_that_are_read_without_a_try_must_be_there(
    stand_ins: StandIns, loaded: LoadedModel, key: str
) -> None:
    config = write_model(stand_ins, f"no-{key}")
    config = re.sub(rf'parameters {{\s*key: "{key}".*?}}\s*}}\s*}}?\n', "", config, flags=re.DOTALL)
    assert f'"{key}"' not in config
    with pytest.raises(ModelLoadFailed, match=f"Could not find parameter: {key}"):
        load_text(stand_ins, f"no-{key}", config)


def test_placeholders_2_4_left_in_texts_are_as_if_nothing_was_said(
    stand_ins: StandIns, loaded: LoadedModel
) -> None:
    open_values = {
        name: "${" + name + "}"
        for name in ("xgrammar_tokenizer_info_path", "tokenizer_dir", "enable_chunked_context")
    }
    load_text(stand_ins, "open", write_model(stand_ins, "open", **open_values))
    client = stand_ins.client("open", PROMPT)
    assert len(client.infer(**GREEDY).token_ids()) == 16
    error = client.infer(guided_decoding_guide_type=b"json", guided_decoding_guide=b"").error
    assert error is not None
    assert "Guided decoding is not enabled" in error
    client.channel.close()


@pytest.mark.parametrize(
    "values",
    [
        {"logits_datatype": "${logits_datatype}"},
        {"decoupled_mode": "${decoupled_mode}"},
        {"triton_max_batch_size": "${triton_max_batch_size}"},
    ],
)
def test_placeholders_2_2_left_outside_texts_break_the_file(
    stand_ins: StandIns, loaded: LoadedModel, values: dict[str, Value]
) -> None:
    with pytest.raises(ModelLoadFailed):
        load_text(stand_ins, "broken", write_model(stand_ins, "broken", **values))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"decoding_mode": "magic"}, "Invalid decoding_mode: magic"),
        ({"decoding_mode": "medusa"}, "the engine's speculative_decoding_mode 1"),
        ({"batching_strategy": "V3"}, "Invalid gpt_model_type: V3"),
        ({"max_beam_width": 4}, "max_beam_width is larger"),
        ({"medusa_choices": "0, 0"}, "medusa_choices cannot be parsed"),
        ({"max_attention_window_size": "[512]"}, "max_attention_window_size cannot be parsed"),
    ],
)
def test_parameters_2_4_that_do_not_fit_the_engine_do_not_load(
    stand_ins: StandIns, loaded: LoadedModel, values: dict[str, Value], reason: str
) -> None:
    with pytest.raises(ModelLoadFailed, match=reason):
        load_text(stand_ins, "unfit", write_model(stand_ins, "unfit", **values))


@pytest.mark.parametrize(
    ("build_config", "reason"),
    [
        ({"plugin_config": {"use_paged_context_fmha": False}}, "use_paged_context_fmha"),
        ({"version": "1.1.0"}, "the engine is of TensorRT-LLM 1.1.0"),
        ({"world_size": 2}, "rank1.engine does not exist"),
    ],
)
def test_engines_5_6_that_cannot_be_served_do_not_load(
    stand_ins: StandIns, build_config: dict[str, Any], reason: str
) -> None:
    config = engine_config(**{k: v for k, v in build_config.items() if k == "plugin_config"})
    if "version" in build_config:
        config["version"] = build_config["version"]
    if "world_size" in build_config:
        config["pretrained_config"]["mapping"]["world_size"] = build_config["world_size"]
    name = f"unloadable-{len(reason)}"
    with pytest.raises(ModelLoadFailed, match=reason):
        stand_ins.load(publish_tensorrt(stand_ins.home, name, config=config))


def test_streaming_2_6_needs_a_decoupled_model(stand_ins: StandIns, loaded: LoadedModel) -> None:
    load_text(stand_ins, "coupled", write_model(stand_ins, "coupled", decoupled_mode=False))
    client = stand_ins.client("coupled", PROMPT)
    error = client.infer().error
    assert error is not None
    assert "Streaming is only supported if model is deployed using decoupled mode." in error
    assert len(client.infer(streaming=[[False]], **GREEDY).token_ids()) == 16
    client.channel.close()


# ---- inputs and outputs (§2.2, §2.3, §2.5)


def test_inputs_and_outputs_2_2_2_3_are_all_declared(loaded: LoadedModel) -> None:
    assert loaded.inputs == {spec.name for spec in INPUTS}
    assert loaded.outputs == {spec.name for spec in OUTPUTS}


def test_inputs_2_2_top_p_min_has_no_effect(client: TensorClient) -> None:
    sampled: dict[str, Any] = {"runtime_top_p": [[0.9]], "seed": [[3]]}
    plain = client.infer(**sampled).token_ids()
    assert client.infer(runtime_top_p_min=[[0.5]], **sampled).token_ids() == plain


def test_inputs_2_2_without_end_id_nothing_ends_before_the_limit(client: TensorClient) -> None:
    assert client.infer(embedding_bias=biased(END_ID)).token_ids() == [END_ID] * 16


def test_inputs_8_3_equal_prompts_without_a_seed_are_sampled_alike(client: TensorClient) -> None:
    answers = [client.infer(runtime_top_p=[[1.0]]).token_ids() for _ in range(2)]
    assert answers[0] == answers[1]
    assert client.infer(runtime_top_p=[[1.0]], seed=[[5]]).token_ids() != answers[0]


@pytest.mark.parametrize(
    "words",
    [
        [[[5, 6], [2, 1]]],  # not increasing
        [[[5, 6], [3, -1]]],  # beyond the end
        [[[5, 6], [-1, 2]]],  # -1 before an offset
        [[[5, 6], [0, 2]]],  # an empty word
    ],
)
@pytest.mark.parametrize("name", ["stop_words_list", "bad_words_list"])
def test_word_lists_2_5_that_are_malformed_are_refused(
    client: TensorClient, name: str, words: list[list[list[int]]]
) -> None:
    values: dict[str, Any] = {name: words}
    answer = client.infer(**values)
    assert answer.error is not None
    assert answer.error.startswith(name)


def test_word_lists_2_5_match_token_sequences_and_are_emitted(client: TensorClient) -> None:
    token_ids = client.infer(**GREEDY).token_ids()
    words = [[*token_ids[4:6], 250], [2, 3, -1]]
    stopped = client.infer(stop_words_list=[words], **GREEDY)
    assert stopped.token_ids() == token_ids[:6]
    banned = client.infer(bad_words_list=[[token_ids[4:6], [2, -1]]], **GREEDY)
    assert banned.token_ids()[:5] == token_ids[:5]
    assert banned.token_ids()[5] != token_ids[5]
    empty = client.infer(stop_words_list=np.zeros((1, 2, 0)), **GREEDY)
    assert empty.token_ids() == token_ids


@pytest.mark.parametrize("name", ["output_ids", "sequence_length"])
def test_outputs_2_3_must_be_listed_when_any_is(client: TensorClient, name: str) -> None:
    other = {"output_ids": "sequence_length", "sequence_length": "output_ids"}[name]
    error = client.infer(outputs=(other,)).error
    assert error == f"{name} tensor must be present in list of output tensors"


def test_outputs_2_3_sequence_index_only_with_several_sequences(client: TensorClient) -> None:
    one = client.infer(**GREEDY)
    assert all("sequence_index" not in response for response in one.responses)
    assert all("batch_index" not in response for response in one.responses)
    two = client.infer(num_return_sequences=[[2]], runtime_top_p=[[1.0]])
    assert {int(r["sequence_index"][0, 0]) for r in two.responses} == {0, 1}
    assert two.is_final.count(True) == 1
    assert two.is_final[-1]


def test_outputs_2_3_have_no_finish_reason(client: TensorClient) -> None:
    names = {name for response in client.infer(**GREEDY).responses for name in response}
    assert names == {"output_ids", "sequence_length"}


def test_outputs_2_3_perf_metrics_are_ten(client: TensorClient) -> None:
    last = client.infer(return_perf_metrics=[[True]]).responses[-1]
    assert len(last.keys() - {"output_ids", "sequence_length"}) == 10
    assert last["arrival_time_ns"] <= last["first_token_time_ns"]


# ---- life cycle and log-probs (§2.6, §2.7)


def test_life_cycle_2_6_streams_deltas_and_ends_with_tensors(client: TensorClient) -> None:
    answer = client.infer(**GREEDY)
    assert all(response["sequence_length"][0, 0] == 1 for response in answer.responses)
    assert answer.is_final == [False] * 15 + [True]
    assert answer.responses[-1]["output_ids"].shape == (1, 1, 1)


def test_life_cycle_2_6_an_answer_in_one_piece_has_the_prompt_unless_told(
    client: TensorClient,
) -> None:
    token_ids = client.infer(**GREEDY).token_ids()
    whole = client.infer(streaming=[[False]], **GREEDY)  # our configuration excludes it
    assert (len(whole.responses), whole.token_ids()) == (1, token_ids)
    echoed = client.infer(streaming=[[False]], exclude_input_in_output=[[False]], **GREEDY)
    assert echoed.token_ids() == PROMPT + token_ids


def test_life_cycle_2_6_end_id_is_neither_emitted_nor_counted(client: TensorClient) -> None:
    answer = client.infer(end_id=[[END_ID]], embedding_bias=biased(END_ID))
    assert answer.token_ids() == []
    assert answer.is_final == [True]
    assert answer.responses[0]["sequence_length"].tolist() == [[0]]


def test_life_cycle_2_6_too_many_tokens_are_cut_without_a_word(client: TensorClient) -> None:
    answer = client.infer(
        input_ids=[[5] * (MAX_SEQ_LEN - 3)], request_output_len=[[1000]], **GREEDY
    )
    assert (answer.error, len(answer.token_ids())) == (None, 3)


def test_life_cycle_2_6_a_prompt_too_long_has_its_wording(client: TensorClient) -> None:
    error = client.infer(input_ids=[[1] * MAX_SEQ_LEN]).error
    assert error is not None
    assert re.match(
        r"Executor failed process requestId \d+ due to the following error: "
        r"Prompt length \(512\) exceeds maximum input length \(511\)",
        error,
    )
    assert isinstance(error_of_message(error, MODEL), ContextLengthExceeded)


def test_life_cycle_2_6_a_stop_request_ends_both(client: TensorClient) -> None:
    stop: dict[str, Any] = {"input_ids": [[0]], "input_lengths": [[0]], "request_output_len": [[0]]}
    victim = client.start("victim", request_output_len=[[500]])
    first = next(victim)
    answer = client.infer("victim", stop=[[True]], streaming=None, **stop)
    stopped = [first, *victim]
    assert (answer.error, answer.responses, answer.is_final) == (None, [{}], [True])
    assert {message.error_message for message in stopped} == {""}
    assert stopped[-1].infer_response.parameters["triton_final_response"].bool_param
    assert len(stopped) < 500
    assert client.infer("unknown", stop=[[True]], streaming=None, **stop).error is None
    error = client.infer("", stop=[[True]], streaming=None, **stop).error
    assert error == "Trying to stop a request but request ID is not provided"


def test_life_cycle_2_6_a_full_queue_is_an_error_that_we_know(
    stand_ins: StandIns, narrow: str
) -> None:
    client = stand_ins.client(narrow, PROMPT)
    seen: set[str] = set()
    deadline = time.monotonic() + 60
    while "Maximum queue size of 1 has been reached, please try again later" not in seen:
        assert time.monotonic() < deadline, seen
        running = client.start(request_output_len=[[500]])
        seen.add(next(running).error_message)  # its first token: the batch is full
        waiting = client.start(request_output_len=[[1]])
        # Triton's own queue is as long, and full until it has handed on the one that waits
        seen |= {client.infer(request_output_len=[[1]]).error or "" for _ in range(10)}
        seen |= {message.error_message for call in (running, waiting) for message in call}
    for error in seen - {""}:
        assert isinstance(error_of_message(error, MODEL), ServerOverloaded)
    client.channel.close()


def test_log_probs_2_7_grow_from_the_first_token(client: TensorClient) -> None:
    answer = client.infer(return_log_probs=[[True]], **GREEDY)
    sizes = [response["output_log_probs"].shape for response in answer.responses]
    assert sizes == [(1, 1, number) for number in range(1, 17)]
    last = answer.responses[-1]
    assert last["cum_log_probs"][0, 0] == pytest.approx(last["output_log_probs"].sum(), abs=1e-3)


def test_log_probs_2_7_are_zero_without_a_sampling_parameter(client: TensorClient) -> None:
    last = client.infer(return_log_probs=[[True]]).responses[-1]
    assert not last["output_log_probs"].any()


def test_guides_2_4_are_followed_with_the_tokenizers_info(client: TensorClient) -> None:
    answer = client.infer(
        guided_decoding_guide_type=b"regex",
        guided_decoding_guide=rb"[0-9]{3}",
        end_id=[[END_ID]],
        **GREEDY,
    )
    assert re.fullmatch("[0-9]{3}", byte_level_tokenizer().decode(answer.token_ids()))


# ---- LoRA (§2.2)


def adapter(seed: int, *, rows: int = 2, rank: int = 8) -> dict[str, Any]:
    weights = np.random.default_rng(seed).normal(size=(1, rows, 64)).astype(np.float16)
    return {"lora_weights": weights, "lora_config": [[[0, row, rank] for row in range(rows)]]}


def test_lora_2_2_the_first_request_brings_the_weights(client: TensorClient) -> None:
    unknown = client.infer(lora_task_id=[[11]], **GREEDY)
    assert error_of(unknown).endswith(
        "LoRA task 11 not found in cache. Please send LoRA weights with request"
    )
    first = client.infer(lora_task_id=[[11]], **adapter(1), **GREEDY).token_ids()
    assert first != client.infer(**GREEDY).token_ids()
    assert client.infer(lora_task_id=[[11]], **GREEDY).token_ids() == first
    other = client.infer(lora_task_id=[[12]], **adapter(2), **GREEDY).token_ids()
    assert other != first


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"lora_weights": adapter(3)["lora_weights"]}, "Either both or neither"),
        (adapter(3) | {"lora_config": [[[0, 0, 8]]]}, "as many rows"),
        (adapter(3, rank=9), "rank is above max_lora_rank 8"),
    ],
)
def test_lora_2_2_weights_and_config_must_fit(
    client: TensorClient, values: dict[str, Any], reason: str
) -> None:
    assert reason in error_of(client.infer(lora_task_id=[[13]], **values))


def test_lora_2_2_an_evicted_adapter_is_an_error(stand_ins: StandIns, loaded: LoadedModel) -> None:
    two_rows = 2 * 64 * 2
    config = write_model(stand_ins, "small-cache", lora_cache_host_memory_bytes=two_rows)
    load_text(stand_ins, "small-cache", config)
    client = stand_ins.client("small-cache", PROMPT)
    assert client.infer(lora_task_id=[[1]], **adapter(1)).error is None
    assert client.infer(lora_task_id=[[2]], **adapter(2)).error is None
    assert "LoRA task 1 not found" in error_of(client.infer(lora_task_id=[[1]]))
    client.channel.close()


# ---- our frontend on it


@pytest.mark.parametrize("name", SIX)
async def test_each_of_the_six_models_is_served_through_our_own_client(
    stand_ins: StandIns, name: str
) -> None:
    variant, max_seq_len, engine = SIX[name]
    mode = DRAFTING_MODES[engine.drafting.mode] if engine.drafting else 1
    config = engine_config(
        max_seq_len=max_seq_len,
        max_input_len=max_seq_len - 1,
        speculative_decoding_mode=mode,
        plugin_config={"use_paged_context_fmha": engine.has_chunked_context},
    )
    artefact = publish_tensorrt(
        stand_ins.home,
        name,
        config=config,
        variant=variant,
        max_seq_len=max_seq_len,
        engine=engine,
    )
    model = await asyncio.to_thread(stand_ins.load, artefact)
    assert (model.variant, model.limits.max_seq_len) == (variant, max_seq_len)
    client = TritonClient(stand_ins.address)
    number = iter(range(100))

    async def ask(**values: Any) -> list[TokenChunk]:
        wanted: dict[str, Any] = {
            "request_id": f"{name}-{next(number)}",
            "model": name,
            "prompt_token_ids": PROMPT,
            "max_new_tokens": 12,
            "end_id": END_ID,
        }
        request = GenerationRequest(**(wanted | values))
        async with aclosing(client.stream(request)) as chunks:
            return [chunk async for chunk in chunks]

    def token_ids(chunks: list[TokenChunk]) -> list[int]:
        return [token_id for chunk in chunks for token_id in chunk.token_ids]

    try:
        plain = await ask(sampling=SamplingParams(temperature=0))
        assert len(token_ids(plain)) == 12
        assert plain[-1].finish_reason is FinishReason.LENGTH
        stop = token_ids(plain)[3]
        stopped = await ask(sampling=SamplingParams(temperature=0), stop_token_ids=(stop,))
        assert stopped[-1].finish_reason is FinishReason.STOP
        log_probs = await ask(sampling=SamplingParams(temperature=0, num_log_probs=0))
        assert len([one for chunk in log_probs for one in chunk.log_probs or []]) == 12
        guide = Guide(type=GuideType.REGEX, text="[a-c]{3}")
        guided = await ask(sampling=SamplingParams(guide=guide, seed=4, top_p=0.9))
        assert (len(token_ids(guided)), guided[-1].finish_reason) == (3, FinishReason.STOP)
        with pytest.raises(InvalidParameter, match="min_p"):
            await ask(sampling=SamplingParams(min_p=0.1))
        with pytest.raises(ContextLengthExceeded):
            await ask(prompt_token_ids=[1] * max_seq_len)
    finally:
        await client.close()


async def test_a_client_of_ours_that_leaves_frees_its_place(
    stand_ins: StandIns, narrow: str
) -> None:
    client = TritonClient(stand_ins.address)
    try:
        for number in range(6):  # more than the batch and the queue hold together
            request = GenerationRequest(
                request_id=f"leaver-{number}",
                model=narrow,
                prompt_token_ids=PROMPT,
                max_new_tokens=500,
            )
            stream = client.stream(request)
            await anext(stream)
            await stream.aclose()
    finally:
        await client.close()
