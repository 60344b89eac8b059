"""The scripted kind inside a real Triton, through the frontend's own client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from build_engines.artefacts.artefact import Artefact, find_artefact
from frontend.errors import GenerationFailed, ModelLoadFailed, ServerOverloaded
from frontend.settings import Settings
from frontend.text.tokenizer import TextTokenizer
from frontend.triton.client import TritonClient
from frontend.triton.metrics import fetch_metrics
from frontend.triton.repository import ModelRepository
from frontend.triton.server import LOOPBACK, EmbeddedTriton, Ports
from frontend.types import (
    FinishReason,
    GenerationRequest,
    Guide,
    GuideType,
    LoadedModel,
    SamplingParams,
    TokenChunk,
)
from tests.fakes.scripted import write_scripted_model
from tests.integration.counter import free_ports
from triton_models.contract import CPU_EXTRA_INPUTS, CPU_EXTRA_OUTPUTS, INPUTS, OUTPUTS
from triton_models.scripted.script import Scenario, TokenLogProbs

MODEL = "play"
CALL = (
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call><|im_end|>'
)
SCENARIOS = [
    Scenario(name="default", text="I do not know.", tokens_per_response=2, num_cached_tokens=3),
    Scenario(name="call", match="weather", text=CALL, guided_text='{"city": "Paris"}'),
    Scenario(name="answer", match="<|im_start|>tool", text="It is sunny."),
    Scenario(name="both", match="twice", text=["one", "two"]),
    Scenario(name="slow", match="slowly", text="word " * 200, step_delay_ms=200),
    Scenario(name="busy", match="overload", text="", error="Exceeds maximum queue size"),
    Scenario(
        name="broken",
        match="break",
        text="a b c",
        step_delay_ms=20,  # the frontend drops tokens that arrive together with an error
        error="CUDA error",
        error_after=2,
    ),
    Scenario(
        name="planned",
        match="probable",
        text="Paris",
        log_probs=[TokenLogProbs(log_prob=-0.25, top=[("Paris", -0.25), ("London", -1.75)])],
        finish="length",
    ),
]


@pytest.fixture(scope="module")
def ports() -> Ports:
    return free_ports()


@pytest.fixture(scope="module")
def scripted_home(tmp_path_factory: pytest.TempPathFactory, artefact: Artefact) -> Path:
    home = tmp_path_factory.mktemp("scripted")
    write_scripted_model(home, MODEL, SCENARIOS, tokenizer_from=artefact)
    return home


@pytest.fixture(scope="module")
def triton(scripted_home: Path, ports: Ports) -> Iterator[EmbeddedTriton]:
    (scripted_home / "repository").mkdir()
    with EmbeddedTriton(scripted_home, ports) as triton:
        yield triton


@pytest.fixture
async def client(triton: EmbeddedTriton, ports: Ports) -> AsyncIterator[TritonClient]:
    client = TritonClient(f"{LOOPBACK}:{ports.grpc}")
    yield client
    await client.close()


@pytest.fixture
def repository(scripted_home: Path, client: TritonClient) -> ModelRepository:
    return ModelRepository(Settings(home=scripted_home), client.rpc, client.capabilities)


@pytest.fixture
async def loaded(
    repository: ModelRepository, client: TritonClient, scripted_home: Path
) -> LoadedModel:
    if await client.rpc.model_ready(MODEL):
        return await client.loaded_model(MODEL)
    return await repository.load(published(scripted_home))


def published(home: Path, name: str = MODEL) -> Artefact:
    found = find_artefact(home, name, "scripted")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def tokenizer(artefact: Artefact) -> TextTokenizer:
    return TextTokenizer(artefact.path / "tokenizer")


class Speaker:
    """Says prompts to the model and tells what came."""

    def __init__(self, client: TritonClient, tokenizer: TextTokenizer) -> None:
        self.client = client
        self.tokenizer = tokenizer
        self._num_requests = 0

    def request(
        self,
        prompt: str,
        *,
        sampling: SamplingParams | None = None,
        num_sequences: int = 1,
        max_new_tokens: int = 500,
    ) -> GenerationRequest:
        self._num_requests += 1
        return GenerationRequest(
            request_id=f"r{self._num_requests}",
            model=MODEL,
            prompt_token_ids=self.tokenizer.encode(prompt, add_special_tokens=False),
            max_new_tokens=max_new_tokens,
            num_sequences=num_sequences,
            sampling=sampling or SamplingParams(),
            end_id=2,
        )

    async def ask(self, prompt: str, **options: object) -> list[TokenChunk]:
        wanted = self.request(prompt, **options)  # type: ignore[arg-type]
        async with aclosing(self.client.stream(wanted)) as chunks:
            return [chunk async for chunk in chunks]

    def text(self, chunks: list[TokenChunk], index: int = 0) -> str:
        ids = [i for c in chunks if c.sequence_index == index for i in c.token_ids]
        return self.tokenizer.decode(ids, skip_special_tokens=False)


@pytest.fixture
def speaker(client: TritonClient, tokenizer: TextTokenizer, loaded: LoadedModel) -> Speaker:
    return Speaker(client, tokenizer)


def test_it_has_all_tensors_of_the_cpu_engine(loaded: LoadedModel) -> None:
    assert loaded.inputs == {spec.name for spec in (*INPUTS, *CPU_EXTRA_INPUTS)}
    assert loaded.outputs == {spec.name for spec in (*OUTPUTS, *CPU_EXTRA_OUTPUTS)}
    assert loaded.limits.max_seq_len == 8192
    assert loaded.embedding_size is None


async def test_the_default_answers_what_nothing_matches(speaker: Speaker) -> None:
    chunks = await speaker.ask("hello")
    assert speaker.text(chunks) == "I do not know."
    assert chunks[-1].finish_reason is FinishReason.STOP
    assert [c.num_cached_tokens for c in chunks if c.num_cached_tokens] == [3]


async def test_a_tool_call_and_the_answer_to_its_result(speaker: Speaker) -> None:
    question = "<|im_start|>user\nthe weather?<|im_end|>\n"
    call = await speaker.ask(question)
    assert speaker.text(call) + "<|im_end|>" == CALL
    answer = await speaker.ask(f"{question}{CALL}\n<|im_start|>tool\nsunny<|im_end|>\n")
    assert speaker.text(answer) == "It is sunny."


async def test_a_guide_changes_what_is_said(speaker: Speaker) -> None:
    guide = Guide(type=GuideType.JSON_SCHEMA, text='{"type": "object"}')
    chunks = await speaker.ask("weather", sampling=SamplingParams(guide=guide))
    assert json.loads(speaker.text(chunks)) == {"city": "Paris"}


async def test_sequences_play_their_own_texts(speaker: Speaker) -> None:
    chunks = await speaker.ask("say it twice", num_sequences=3)
    assert [speaker.text(chunks, index) for index in range(3)] == ["one", "two", "one"]
    assert sum(c.finish_reason is FinishReason.STOP for c in chunks) == 3


async def test_length_is_kept(speaker: Speaker) -> None:
    chunks = await speaker.ask("hello", max_new_tokens=2)
    assert speaker.text(chunks) == "I do"
    assert chunks[-1].finish_reason is FinishReason.LENGTH


async def test_planned_log_probs_arrive(speaker: Speaker) -> None:
    chunks = await speaker.ask("probable", sampling=SamplingParams(num_log_probs=2))
    (chunk,) = [c for c in chunks if c.token_ids]
    assert chunk.log_probs == [-0.25]
    assert chunk.top_log_probs is not None
    top = [
        (speaker.tokenizer.decode([one.token_id]), one.log_prob) for one in chunk.top_log_probs[0]
    ]
    assert top == [("Paris", -0.25), ("London", -1.75)]
    assert chunk.finish_reason is FinishReason.LENGTH


async def test_an_error_before_the_first_token_is_mapped(speaker: Speaker) -> None:
    with pytest.raises(ServerOverloaded):
        await speaker.ask("overload")


async def test_an_error_in_mid_stream_comes_behind_its_tokens(speaker: Speaker) -> None:
    wanted = speaker.request("break")
    received = []
    with pytest.raises(GenerationFailed, match="CUDA error"):  # noqa: PT012, what came before counts
        async with aclosing(speaker.client.stream(wanted)) as chunks:
            async for chunk in chunks:
                received += chunk.token_ids
    assert speaker.tokenizer.decode(received) == "a b"


async def num_ended(ports: Ports) -> float:
    """Requests that Triton has counted, which it does at their final response."""
    text = await fetch_metrics(f"{LOOPBACK}:{ports.metrics}")
    assert text is not None
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if family.name in ("nv_inference_request_success", "nv_inference_request_failure")
        and sample.labels["model"] == MODEL
    )


async def test_a_client_that_leaves_ends_its_request(speaker: Speaker, ports: Ports) -> None:
    before = await num_ended(ports)
    stream = speaker.client.stream(speaker.request("slowly"))
    await anext(stream)
    await stream.aclose()
    # the request and the one that stops it; the whole answer would take 40 s
    async with asyncio.timeout(20):
        while await num_ended(ports) < before + 2:  # noqa: ASYNC110, it is another process
            await asyncio.sleep(0.05)


async def test_a_hundred_at_once_get_their_own_answers(speaker: Speaker) -> None:
    prompts = ["hello", "the weather?", "<|im_start|>tool\nx", "probable"] * 25
    answers = await asyncio.gather(*(speaker.ask(prompt) for prompt in prompts))
    texts = [speaker.text(chunks) for chunks in answers]
    expected = ["I do not know.", CALL.removesuffix("<|im_end|>"), "It is sunny.", "Paris"]
    assert texts == expected * 25


async def test_a_script_that_cannot_be_played_is_told_by_the_load(
    repository: ModelRepository, scripted_home: Path, artefact: Artefact, loaded: LoadedModel
) -> None:
    write_scripted_model(scripted_home, "bad", [Scenario(name="nothing")], tokenizer_from=artefact)
    with pytest.raises(ModelLoadFailed, match="scenario nothing: either text or token_ids"):
        await repository.load(published(scripted_home, "bad"))


def test_another_chat_template_takes_the_place_of_the_models(
    tmp_path: Path, artefact: Artefact
) -> None:
    made = write_scripted_model(
        tmp_path, "other", SCENARIOS, "{{ messages[0].content }}!", tokenizer_from=artefact
    )
    rendered = TextTokenizer(made.path / "tokenizer").render_chat(
        [{"role": "user", "content": "Hi"}]
    )
    assert rendered == "Hi!"
    assert made.manifest.tokens == artefact.manifest.tokens
