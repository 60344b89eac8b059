"""The llama.cpp engine on the default model's GGUF file as it is: built, alone, and in Triton."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from build_engines.artefacts.artefact import Artefact
from build_engines.pipeline import build
from frontend.settings import Settings
from frontend.triton.folders import write_model_folder
from frontend.triton.server import EmbeddedTriton
from tests.conftest import DEFAULT_MODEL
from tests.integration.counter import free_ports
from tests.integration.tensor_client import PLAIN, TensorClient
from tests.integration.test_cpu_engine import END_ID, QUESTIONS, chat, submit
from tests.unit.triton_models.fake_model import Recorder
from triton_models.batching.batcher import Batcher
from triton_models.batching.settings import EngineSettings, load_guides
from triton_models.cpu import engine as cpu_engine
from triton_models.llama_cpp.engine import gguf_path, load_batcher
from triton_models.request import EngineRequest, SamplingParams


@pytest.fixture(scope="session")
def gguf_artefact(request: pytest.FixtureRequest) -> Artefact:
    """Kept between runs; building it asks it in a Triton of its own, too."""
    home = Path(str(request.config.cache.mkdir("gguf-home")))
    return build(DEFAULT_MODEL, "gguf", home)


def settings_of(artefact: Artefact) -> EngineSettings:
    """Threads that wait for one another by spinning are slow beside other programs."""
    return EngineSettings.from_artefact(artefact.path, num_threads=1)


@pytest.fixture(scope="module")
def tokenizer(gguf_artefact: Artefact) -> Tokenizer:
    return Tokenizer.from_file(str(gguf_artefact.path / "tokenizer" / "tokenizer.json"))


@pytest.fixture(scope="module")
def batcher(gguf_artefact: Artefact) -> Iterator[Batcher]:
    batcher = load_batcher(settings_of(gguf_artefact))
    yield batcher
    assert batcher.stats().used_blocks == 0
    batcher.close()


def submit_salted(batcher: Batcher, prompt: list[int], num_tokens: int, salt: int) -> Recorder:
    recorder = Recorder()
    batcher.submit(
        EngineRequest(
            prompt_token_ids=prompt,
            max_new_tokens=num_tokens,
            on_event=recorder,
            end_id=END_ID,
            cache_salt=salt,
        )
    )
    return recorder


def test_the_file_is_served_as_it_is(gguf_artefact: Artefact) -> None:
    manifest = gguf_artefact.manifest
    assert (manifest.kind, manifest.format, manifest.quantization) == ("llama_cpp", "gguf", "q4_1")
    assert (manifest.limits.max_seq_len, manifest.limits.vocab_size) == (8192, 49152)
    assert manifest.tokens.eos_ids[0] == END_ID
    assert manifest.verification is not None
    assert manifest.files["checkpoint/SmolLM2-135M-Instruct.Q4_1.gguf"].size_bytes == 98_362_432
    path = gguf_path(gguf_artefact.path)
    assert path.stat().st_nlink > 1 or os.stat(path).st_dev != os.stat(np.__file__).st_dev


def test_it_knows_the_capital_of_france(batcher: Batcher, tokenizer: Tokenizer) -> None:
    output = submit(batcher, chat(tokenizer, QUESTIONS[0])).wait().token_ids()
    assert tokenizer.decode(output) == "The capital of France is Paris."


def test_greedy_texts_of_eight_at_once_are_those_of_each_alone(
    gguf_artefact: Artefact, tokenizer: Tokenizer
) -> None:
    """In an engine that is new: the cells are taken in order."""
    batcher = load_batcher(settings_of(gguf_artefact))
    prompts = [chat(tokenizer, question) for question in QUESTIONS[:8]]
    expected = [submit_salted(batcher, prompt, 20, 1).wait().token_ids() for prompt in prompts]
    together = [submit_salted(batcher, prompt, 20, 2) for prompt in prompts]
    assert [recorder.wait().token_ids() for recorder in together] == expected
    batcher.close()


def test_the_openvino_engine_says_the_same_of_a_text(
    batcher: Batcher, artefact: Artefact, tokenizer: Tokenizer
) -> None:
    """From the same file: Q4_1 here, and requantized to Q8_0 there."""
    text = tokenizer.encode("The sun rises in the east and sets in the west. Water is wet.").ids
    prompt = chat(tokenizer, QUESTIONS[0])
    other = cpu_engine.load_batcher(EngineSettings.from_artefact(artefact.path))
    log_probs, answers = [], []
    for engine in (batcher, other):
        recorder = Recorder()
        engine.submit(
            EngineRequest(
                prompt_token_ids=text,
                max_new_tokens=0,
                on_event=recorder,
                returns_prompt_log_probs=True,
            )
        )
        told = recorder.wait().last.prompt_log_probs
        assert told is not None
        log_probs.append(told.log_probs)
        answers.append(submit(engine, prompt).wait().token_ids())
    other.close()
    assert np.abs(log_probs[0] - log_probs[1]).mean() < 0.1
    assert answers[0] == answers[1]


def test_a_schema_is_kept(gguf_artefact: Artefact, batcher: Batcher, tokenizer: Tokenizer) -> None:
    guides = load_guides(EngineSettings.from_artefact(gguf_artefact.path))
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 120}},
        "required": ["age"],
        "additionalProperties": False,
    }
    guide = guides.compile("json_schema", json.dumps(schema))
    prompt = chat(tokenizer, "Describe a person as JSON.")
    sampling = SamplingParams(top_p=1.0, seed=1)
    recorder = submit(batcher, prompt, 60, sampling=sampling, guide=guide).wait()
    assert 0 <= json.loads(tokenizer.decode(recorder.token_ids()))["age"] <= 120


@pytest.fixture(scope="module")
def client(
    gguf_artefact: Artefact, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TensorClient]:
    home = tmp_path_factory.mktemp("llama-cpp")
    write_model_folder(Settings(home=home, num_threads=1), gguf_artefact)
    (home / "state").mkdir(exist_ok=True)
    (home / "state" / "loaded.json").write_text(json.dumps([DEFAULT_MODEL]), encoding="utf-8")
    ports = free_ports()
    with EmbeddedTriton(home, ports):
        client = TensorClient(ports, DEFAULT_MODEL, [1, *range(1000, 1020)])
        yield client
        client.wait_idle()
        client.channel.close()
    shutil.rmtree(home)


def test_triton_streams_counts_and_stops_as_with_the_other_engine(client: TensorClient) -> None:
    answer = client.infer(outputs=PLAIN)
    assert len(answer.token_ids()) == 16
    assert answer.is_final.count(True) == 1
    assert answer.responses[-1]["finish_reason"].tolist() == [[2]]
    assert client.gauges()["tokens_per"] == 1
    call = client.start(outputs=PLAIN, request_output_len=[[4000]])
    for _ in range(3):
        next(call)
    call.cancel()
    assert client.wait_idle() < 5


def test_triton_shares_the_beginnings_of_prompts(client: TensorClient) -> None:
    def num_cached(**values: Any) -> int:
        answer = client.infer(input_ids=[[*range(2000, 2050)]], request_output_len=[[2]], **values)
        return int(answer.responses[0]["num_cached_tokens"][0, 0])

    assert [num_cached(), num_cached(), num_cached(cache_salt=[[5]])] == [0, 49, 0]


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"lora_task_id": [[1]]}, "Unsupported tensor: lora_task_id"),
        (
            {"input_ids": [[1] * 8192]},
            "Prompt length (8192) exceeds maximum input length (8191).",
        ),
    ],
)
def test_a_refusal_has_the_wording_of_the_other_engine(
    client: TensorClient, values: dict[str, Any], error: str
) -> None:
    assert client.infer(**values).error == error
