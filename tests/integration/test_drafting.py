"""Speculative decoding end to end: from a spec to what Triton and its engine get, in all modes.

The draft model's mode is our own loop, against stand-ins of the C++ backend that check guesses.
"""

from __future__ import annotations

import asyncio
import logging
import tomllib
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from build_engines.artefacts.artefact import DraftingFacts, EngineFacts
from build_engines.gpu.gpus import GPUS
from build_engines.pipeline import build
from build_engines.tensorrt.recipe import TensorRtRecipe
from build_engines.variants import Speculative, VariantOptions
from frontend.triton.client import TritonClient
from frontend.triton.drafting import DraftingEngine
from frontend.triton.tensors import encode_request
from frontend.types import (
    FinishReason,
    GenerationRequest,
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
from tests.fakes.tokenizers import write_tokenizer
from tests.fakes.trtllm.install import install_tools
from tests.integration.stand_ins import StandIns
from tests.integration.tensor_client import TensorClient
from tests.unit.build_engines.tensorrt_fakes import (
    ROOMY,
    tiny_spec,
    verify_nothing,
    write_checkpoint,
)

PROMPT = [40, 41, 42, 43, 44]
NUM_GUESSES = 5
GREEDY: dict[str, Any] = {"runtime_top_k": [[1]]}
TARGET, SMALL = "big-engine", "small-engine"
ENDLESS, NARROW = "endless-engine", "narrow-small-engine"


def publish_target(stand_ins: StandIns, name: str, draft: str, num_guesses: int) -> LoadedModel:
    """An engine that takes guesses. Its limits are those that the builder writes for it."""
    facts = DraftingFacts(mode="draft_target", max_draft_len=num_guesses, draft_model=draft)
    artefact = publish_tensorrt(
        stand_ins.home,
        name,
        config=engine_config(speculative_decoding_mode=2, max_draft_len=num_guesses),
        max_seq_len=MAX_SEQ_LEN - num_guesses,
        engine=EngineFacts(max_batch_size=64, drafting=facts),
    )
    return stand_ins.load(artefact)


def publish_draft(stand_ins: StandIns, name: str, **limits: int) -> None:
    """Chooses what the target chooses, but for one context in three."""
    config = engine_config(**limits) | {"stand_in": {"slips_every": 3}}
    engine = EngineFacts(max_batch_size=limits.get("max_batch_size", 64))
    artefact = publish_tensorrt(stand_ins.home, name, config=config, engine=engine)
    stand_ins.load(artefact, max_queue_size=4 if limits else 256)


@pytest.fixture(scope="module")
def target(stand_ins: StandIns) -> LoadedModel:
    publish_draft(stand_ins, SMALL)
    return publish_target(stand_ins, TARGET, SMALL, NUM_GUESSES)


@pytest.fixture
def client(stand_ins: StandIns, target: LoadedModel) -> Iterator[TensorClient]:
    client = stand_ins.client(TARGET, PROMPT)
    yield client
    client.channel.close()


class Watched(TritonClient):
    """Our client, with the requests that it sends and whether their model has begun to answer."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.asked: list[GenerationRequest] = []
        self.begun: dict[str, asyncio.Event] = {}

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[TokenChunk, None]:
        self.asked.append(request)
        begun = self.begun.setdefault(request.model, asyncio.Event())
        async with aclosing(super().stream(request)) as chunks:
            async for chunk in chunks:
                begun.set()
                yield chunk

    def num_asked(self, model: str) -> int:
        return sum(request.model == model for request in self.asked)


def request_for(model: str, number: int, **changes: Any) -> GenerationRequest:
    request = GenerationRequest(
        request_id=f"{model}-{number}",
        model=model,
        prompt_token_ids=[*PROMPT, number],
        max_new_tokens=40,
        end_id=END_ID,
        sampling=SamplingParams(temperature=0),
    )
    return replace(request, **changes)


async def read(stream: AsyncGenerator[TokenChunk, None]) -> tuple[list[int], FinishReason | None]:
    async with aclosing(stream) as chunks:
        got = [chunk async for chunk in chunks]
    return [one for chunk in got for one in chunk.token_ids], got[-1].finish_reason


# ---- what the backend does with guesses (llmRequest.cpp, trtGptModelInflightBatching.cpp)


def test_guesses_are_accepted_up_to_the_first_wrong_one(client: TensorClient) -> None:
    token_ids = client.infer(**GREEDY).token_ids()
    for num_right in range(NUM_GUESSES + 1):
        guesses = token_ids[:NUM_GUESSES]
        if num_right < NUM_GUESSES:
            guesses[num_right] += 1
        answer = client.infer(draft_input_ids=[guesses], return_perf_metrics=[[True]], **GREEDY)
        assert answer.token_ids() == token_ids[: num_right + 1]
        assert answer.is_final == [True]  # one step, whatever was asked for
        assert answer.responses[0]["total_accepted_draft_tokens"].tolist() == [[num_right]]
        assert answer.responses[0]["total_draft_tokens"].tolist() == [[NUM_GUESSES]]


def test_an_end_among_guesses_is_not_given_out(client: TensorClient) -> None:
    token_ids = client.infer(**GREEDY).token_ids()
    answer = client.infer(draft_input_ids=[token_ids[:4]], end_id=[[token_ids[2]]], **GREEDY)
    assert answer.token_ids() == token_ids[:2]


def test_more_guesses_than_the_engine_was_built_for_are_refused(client: TensorClient) -> None:
    error = client.infer(draft_input_ids=[[1] * (NUM_GUESSES + 1)]).error
    assert error is not None
    assert "Draft tokens length (6) exceeds maximum draft tokens length (5)." in error


def test_room_for_a_steps_guesses_is_kept_free(client: TensorClient) -> None:
    prompt = [[5] * (MAX_SEQ_LEN - 20)]
    answer = client.infer(input_ids=prompt, request_output_len=[[100]], **GREEDY)
    assert len(answer.token_ids()) == 20 - NUM_GUESSES


# ---- our loop


async def test_a_draft_model_changes_nothing_but_the_number_of_steps(
    stand_ins: StandIns, target: LoadedModel
) -> None:
    client = Watched(stand_ins.address)
    engine = DraftingEngine(client)
    num_tokens = 0
    try:
        assert (await engine.loaded_model(TARGET)).drafting is not None
        for number in range(5):
            request = request_for(TARGET, number)
            alone = await read(client.stream(replace(request, request_id=f"alone-{number}")))
            before = client.num_asked(TARGET)
            assert await read(engine.stream(request)) == alone
            num_steps = client.num_asked(TARGET) - before
            num_tokens += len(alone[0])
            assert num_steps < max(len(alone[0]), 2)
            assert client.num_asked(SMALL)
            stop = replace(request, request_id=f"stop-{number}", stop_token_ids=(alone[0][7],))
            stopped = await read(engine.stream(stop))
            first = alone[0].index(alone[0][7])
            assert stopped == (alone[0][: first + 1], FinishReason.STOP)
            end = replace(request, request_id=f"end-{number}", end_id=alone[0][7])
            assert await read(engine.stream(end)) == (alone[0][:first], FinishReason.STOP)
        drafted = [one for one in client.asked if one.draft_token_ids]
        assert sum(len(one.draft_token_ids) + 1 for one in drafted) > num_tokens
    finally:
        await client.close()


async def test_a_whole_context_is_filled_as_without_a_draft_model(
    stand_ins: StandIns, target: LoadedModel
) -> None:
    client = Watched(stand_ins.address)
    engine = DraftingEngine(client)
    try:
        limits = (await engine.loaded_model(TARGET)).limits
        room = limits.max_seq_len - 480
        request = request_for(
            TARGET, 0, prompt_token_ids=[7] * 480, max_new_tokens=room, end_id=None
        )
        alone = await read(client.stream(replace(request, request_id="long-alone")))
        assert (len(alone[0]), alone[1]) == (room, FinishReason.LENGTH)
        assert await read(engine.stream(request)) == alone
    finally:
        await client.close()


async def test_leaving_while_the_draft_model_guesses_frees_its_place(stand_ins: StandIns) -> None:
    """The draft model has one place, and few that wait: were they not freed, it would refuse."""
    await asyncio.to_thread(publish_draft, stand_ins, NARROW, max_batch_size=1)
    await asyncio.to_thread(publish_target, stand_ins, ENDLESS, NARROW, 200)
    client = Watched(stand_ins.address)
    engine = DraftingEngine(client)
    try:
        await engine.loaded_model(ENDLESS)
        for number in range(12):
            client.begun[NARROW] = asyncio.Event()
            request = request_for(ENDLESS, number, max_new_tokens=300)
            reading = asyncio.create_task(read(engine.stream(request)))
            async with asyncio.timeout(5):
                await client.begun[NARROW].wait()
            reading.cancel()
            await asyncio.wait((reading,))
        assert client.num_asked(ENDLESS) == 0
    finally:
        await client.close()


async def test_a_draft_model_that_goes_in_the_middle_is_not_missed(
    stand_ins: StandIns, target: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    client = Watched(stand_ins.address)
    engine = DraftingEngine(client)
    try:
        await engine.loaded_model(TARGET)
        request = request_for(TARGET, 3, end_id=None)
        alone = await read(client.stream(replace(request, request_id="gone-alone")))
        stream = engine.stream(request)
        first = await anext(stream)
        await client.rpc.unload_model(SMALL)
        client.capabilities.invalidate(SMALL)
        rest = await read(stream)
        assert (first.token_ids + rest[0], rest[1]) == alone
        assert client.asked[-1].draft_token_ids == ()
        assert [one.message for one in caplog.records if one.levelno == logging.WARNING] == [
            "no draft model"
        ]
        again = await read(engine.stream(replace(request, request_id="still-gone")))
        assert again == alone
        await client.rpc.load_model(SMALL)
        client.capabilities.invalidate(SMALL)
        num_asked = client.num_asked(SMALL)
        assert await read(engine.stream(replace(request, request_id="back"))) == alone
        assert client.num_asked(SMALL) > num_asked
    finally:
        await client.close()


# ---- from a spec to Triton: [speculative] -> flags -> parameters -> tensors of a request

TREE = [[0], [0, 0], [1], [0, 1]]
MODES: dict[str, tuple[str, dict[str, list[str]], dict[str, str], set[str]]] = {
    "draft_target": (
        'draft_model = "draft"\nmax_draft_len = 4',
        {"--speculative_decoding_mode": ["draft_tokens_external"], "--max_draft_len": ["4"]},
        {"decoding_mode": "", "draft_model": "draft", "max_draft_len": "4",
         "enable_kv_cache_reuse": "true"},
        {"draft_input_ids"},
    ),
    "lookahead": (
        "window_size = 3\nngram_size = 4\nverification_set_size = 2",
        {"--speculative_decoding_mode": ["lookahead_decoding"], "--max_draft_len": ["14"]},
        {"decoding_mode": "lookahead", "lookahead_window_size": "3", "lookahead_ngram_size": "4",
         "lookahead_verification_set_size": "2"},
        set(),
    ),
    "medusa": (
        f"draft_model = \"DRAFT\"\nchoices = {TREE}\nnum_heads = 3",
        {"--speculative_decoding_mode": ["medusa"], "--num_medusa_heads": ["3"],
         "--medusa_model_dir": ["DRAFT"]},
        {"decoding_mode": "medusa", "medusa_choices": "{0}, {0, 0}, {1}, {0, 1}"},
        set(),
    ),
    "eagle": (
        f"draft_model = \"DRAFT\"\nchoices = {TREE}",
        {"--speculative_decoding_mode": ["eagle"], "--num_eagle_layers": ["2"],
         "--eagle_model_dir": ["DRAFT"], "--max_draft_len": ["63"]},
        {"decoding_mode": "eagle", "eagle_choices": "{0}, {0, 0}, {1}, {0, 1}",
         "enable_chunked_context": "false"},
        set(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_goes_from_the_spec_to_the_engine(
    mode: str, stand_ins: StandIns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, flags, parameters, tensors = MODES[mode]
    draft = write_checkpoint(tmp_path / "draft")
    tools = install_tools(tmp_path / "tools")
    given = tomllib.loads(f'mode = "{mode}"\n{table}'.replace("DRAFT", str(draft)))
    speculative = msgspec.convert(given, Speculative)
    options = VariantOptions(quantization="fp16", speculative=speculative)
    checkpoint = write_checkpoint(tmp_path / "checkpoint", {"vocab_size": VOCAB_SIZE})
    write_tokenizer(checkpoint)
    spec = replace(
        tiny_spec(checkpoint),
        name=f"tiny-{mode}",
        variants={"guessing": options},
    )
    recipe = TensorRtRecipe(gpus=lambda: [GPUS["L4"]], verifying=verify_nothing)
    recipes = {"tensorrt_llm": recipe}
    home = stand_ins.home
    with monkeypatch.context() as patch:
        for name, value in tools.environment.items():
            patch.setenv(name, value)
        patch.setenv("INFLIGHT_TRTLLM_EXAMPLES", str(tools.examples))
        built = build(spec, "guessing", home, recipes=recipes, machine=ROOMY)
        if mode == "draft_target":
            small = replace(spec, name="draft", variants={"fp16": VariantOptions()})
            stand_ins.load(build(small, "fp16", home, recipes=recipes, machine=ROOMY))
    log = (home / "builds" / spec.name / "guessing" / "build.log").read_text().split()
    for flag, values in flags.items():
        wanted = [value.replace("DRAFT", str(draft)) for value in values]
        assert log[log.index(flag) + 1 :][: len(wanted)] == wanted
    loaded = stand_ins.load(built)
    config = asyncio.run(config_of(stand_ins, spec.name))
    assert {name: config[name].string_value for name in parameters} == parameters
    engine = built.manifest.engine
    assert engine is not None
    assert engine.drafting is not None
    assert loaded.limits.max_seq_len == 256 - engine.drafting.max_draft_len
    assert asyncio.run(own_tensors(stand_ins, loaded)) == tensors


async def config_of(stand_ins: StandIns, model: str) -> Any:
    """The parameters of the configuration that Triton runs."""
    client = TritonClient(stand_ins.address)
    try:
        return (await client.rpc.model_config(model)).parameters
    finally:
        await client.close()


async def own_tensors(stand_ins: StandIns, model: LoadedModel) -> set[str]:
    """The tensors of a request's parts that a model without guesses would not be sent."""
    from tritonclient.grpc import service_pb2

    client = Watched(stand_ins.address)
    engine = DraftingEngine(client)
    try:
        await engine.loaded_model(model.name)
        request = request_for(
            model.name, 2, prompt_token_ids=[5, 6, 7], max_new_tokens=20, end_id=None
        )
        token_ids, reason = await read(engine.stream(request))
        assert (len(token_ids), reason) == (20, FinishReason.LENGTH)
    finally:
        await client.close()
    plain = {"input_ids", "input_lengths", "request_output_len", "streaming", "runtime_top_k"}
    sent = [one for one in client.asked if one.model == model.name]
    parsed = [service_pb2.ModelInferRequest.FromString(encode_request(one, model)) for one in sent]
    return {tensor.name for message in parsed for tensor in message.inputs} - plain
