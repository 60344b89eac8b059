"""What the client does when a model changes, and when an engine lacks an adapter's weights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from build_engines.lora.files import CONFIG_NAME, WEIGHTS_NAME
from frontend.errors import AdapterEvicted, GenerationFailed, ModelChanged, ModelNotLoaded
from frontend.triton.client import TritonClient
from frontend.types import GenerationRequest, LoraAdapter, ServedVersion
from tests.fakes.triton import TRTLLM_INPUTS, FakeModel, FakeTriton

TOKEN_IDS = [100, 101, 102]
REQUEST = GenerationRequest(
    request_id="r1",
    model="fake",
    prompt_token_ids=[1, 2, 3],
    max_new_tokens=3,
    prepared_for=ServedVersion(number=1, tokenizer_hash="same"),
)


@pytest.fixture
def model() -> FakeModel:
    return FakeModel(tokenizer_hash="same")


@pytest.fixture
async def triton(model: FakeModel) -> AsyncIterator[FakeTriton]:
    async with FakeTriton(model) as triton:
        yield triton


@pytest.fixture
async def client(triton: FakeTriton) -> AsyncIterator[TritonClient]:
    client = TritonClient(triton.url)
    yield client
    await client.close()


@pytest.fixture
def adapters(tmp_path: Path) -> list[LoraAdapter]:
    found = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        np.save(folder / WEIGHTS_NAME, np.full((2, 3), number, np.float16))
        np.save(folder / CONFIG_NAME, np.array([[1, 0, 4], [1, 1, 4]], np.int32))
        found.append(LoraAdapter(name=f"a{number}", task_id=number, directory=str(folder)))
    return found


async def token_ids(client: TritonClient, request: GenerationRequest) -> list[int]:
    async with aclosing(client.stream(request)) as chunks:
        return [token_id async for chunk in chunks for token_id in chunk.token_ids]


def sent_weights(triton: FakeTriton) -> list[bool]:
    return ["lora_weights" in request.inputs for request in triton.requests]


async def test_a_request_for_the_version_before_is_to_be_prepared_again(
    model: FakeModel, client: TritonClient
) -> None:
    assert await token_ids(client, REQUEST) == TOKEN_IDS
    model.number = 2  # the client still takes it for version 1: it remembers for a second
    with pytest.raises(ModelChanged):
        await token_ids(client, REQUEST)
    loaded = await client.loaded_model("fake")
    assert loaded.served == ServedVersion(number=2, tokenizer_hash="same")
    assert await token_ids(client, replace(REQUEST, prepared_for=loaded.served)) == TOKEN_IDS
    with pytest.raises(ModelChanged):
        await token_ids(client, REQUEST)


async def test_a_part_of_an_answer_goes_to_the_new_version_of_the_same_tokenizer(
    model: FakeModel, client: TritonClient
) -> None:
    await client.loaded_model("fake")
    model.number = 2
    assert await token_ids(client, replace(REQUEST, may_move=True)) == TOKEN_IDS


async def test_a_part_of_an_answer_never_meets_another_tokenizer(
    model: FakeModel, triton: FakeTriton, client: TritonClient
) -> None:
    await client.loaded_model("fake")
    model.number, model.tokenizer_hash = 2, "other"
    with pytest.raises(ModelChanged):
        await token_ids(client, replace(REQUEST, may_move=True))
    assert {request.version for request in triton.requests} == {"1"}


async def test_a_model_that_was_unloaded_is_not_loaded(
    model: FakeModel, client: TritonClient
) -> None:
    await client.loaded_model("fake")
    model.is_loaded = False
    with pytest.raises(ModelChanged):
        await token_ids(client, REQUEST)
    with pytest.raises(ModelNotLoaded):
        await client.loaded_model("fake")


async def test_weights_go_with_the_first_request_of_each_load_only(
    model: FakeModel, triton: FakeTriton, client: TritonClient, adapters: list[LoraAdapter]
) -> None:
    request = replace(REQUEST, adapter=adapters[0])
    for _ in range(2):
        assert await token_ids(client, request) == TOKEN_IDS
    shape, weights = triton.requests[0].inputs["lora_weights"]
    assert (shape, weights) == ((1, 2, 3), np.ones((2, 3), np.float16).tobytes())
    assert triton.requests[0].integers("lora_config") == [1, 0, 4, 1, 1, 4]
    model.number, model.adapters = 2, []
    client.capabilities.invalidate("fake")
    served = (await client.loaded_model("fake")).served
    await token_ids(client, replace(request, prepared_for=served))
    assert sent_weights(triton) == [True, False, True]


async def test_an_adapter_that_was_evicted_is_sent_again_unseen(
    triton: FakeTriton, client: TritonClient, adapters: list[LoraAdapter]
) -> None:
    for adapter in (*adapters, adapters[0]):  # the engine has room for one
        assert await token_ids(client, replace(REQUEST, adapter=adapter)) == TOKEN_IDS
    assert sent_weights(triton) == [True, True, False, True]


async def test_an_engine_that_never_keeps_an_adapter_is_asked_twice(
    model: FakeModel, triton: FakeTriton, client: TritonClient, adapters: list[LoraAdapter]
) -> None:
    await token_ids(client, replace(REQUEST, adapter=adapters[0]))
    model.error_after = (0, "LoRA task 1 not found in cache. Please send LoRA weights with request")
    with pytest.raises(AdapterEvicted):
        await token_ids(client, replace(REQUEST, adapter=adapters[0]))
    assert sent_weights(triton) == [True, False, True]


async def test_of_many_first_requests_one_sends_the_weights(
    model: FakeModel, triton: FakeTriton, client: TritonClient, adapters: list[LoraAdapter]
) -> None:
    model.delay_s = 0.02
    requests = [replace(REQUEST, request_id=f"r{n}", adapter=adapters[0]) for n in range(20)]
    answers = await asyncio.gather(*(token_ids(client, request) for request in requests))
    assert answers == [TOKEN_IDS] * 20
    assert sum(sent_weights(triton)) == 1


async def test_the_next_sends_the_weights_when_the_first_has_left(
    model: FakeModel, client: TritonClient, adapters: list[LoraAdapter]
) -> None:
    model.delay_s = 30
    request = replace(REQUEST, adapter=adapters[0])
    first = asyncio.create_task(token_ids(client, request))
    while not model.adapters:  # noqa: ASYNC110, no event for it
        await asyncio.sleep(0.01)
    second = asyncio.create_task(token_ids(client, replace(request, request_id="r2")))
    await asyncio.sleep(0)
    model.delay_s, model.adapters = 0, []
    first.cancel()
    assert await asyncio.wait_for(second, 5) == TOKEN_IDS


async def test_an_engine_that_reads_adapters_itself_gets_the_task_id_only(
    model: FakeModel, triton: FakeTriton, client: TritonClient, adapters: list[LoraAdapter]
) -> None:
    model.inputs = TRTLLM_INPUTS - {"lora_weights", "lora_config"}
    model.adapters = [1]
    assert await token_ids(client, replace(REQUEST, adapter=adapters[0])) == TOKEN_IDS
    assert sent_weights(triton) == [False]


async def test_weights_that_cannot_be_read_fail_the_request_alone(
    client: TritonClient, adapters: list[LoraAdapter]
) -> None:
    missing = replace(adapters[0], directory="/nowhere")
    for _ in range(2):
        with pytest.raises(GenerationFailed, match="cannot be read"):
            await token_ids(client, replace(REQUEST, adapter=missing))
    assert await token_ids(client, REQUEST) == TOKEN_IDS
