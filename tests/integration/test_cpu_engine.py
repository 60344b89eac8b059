"""The CPU engine on the real model, without Triton."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator

import numpy as np
import pytest
from tokenizers import Tokenizer

from build_engines.artefacts.artefact import Artefact
from tests.unit.triton_models.fake_model import Recorder
from triton_models.batching.batcher import Batcher
from triton_models.batching.settings import EngineSettings, load_guides
from triton_models.cpu.engine import load_batcher
from triton_models.guided import GuideCompiler
from triton_models.request import EngineRequest, Guide, SamplingParams

END_ID = 2
MIB = 1024 * 1024
QUESTIONS = [
    "What is the capital of France?",
    "Write a poem about the sea.",
    "Explain gravity to a child.",
    "List five fruits.",
    "What is 2+2?",
    "Tell me a story about a dragon.",
    "How do I bake bread?",
    "What is Python?",
    "Who was Napoleon?",
    "Translate hello into Spanish.",
    "Why is the sky blue?",
    "Give me a recipe for soup.",
    "What is a neural network?",
    "Describe a sunset.",
    "Name three planets.",
    "What is the meaning of life?",
]


@pytest.fixture(scope="module")
def tokenizer(artefact: Artefact) -> Tokenizer:
    return Tokenizer.from_file(str(artefact.path / "tokenizer" / "tokenizer.json"))


@pytest.fixture(scope="module")
def batcher(artefact: Artefact) -> Iterator[Batcher]:
    batcher = load_batcher(EngineSettings.from_artefact(artefact.path))
    yield batcher
    assert batcher.stats().used_blocks == 0
    batcher.close()


@pytest.fixture(scope="module")
def guides(artefact: Artefact) -> GuideCompiler:
    return load_guides(EngineSettings.from_artefact(artefact.path))


def chat(tokenizer: Tokenizer, question: str) -> list[int]:
    token_ids: list[int] = tokenizer.encode(
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    ).ids
    return token_ids


def submit(
    batcher: Batcher,
    prompt: list[int],
    max_new_tokens: int = 48,
    *,
    end_id: int = END_ID,
    sampling: SamplingParams | None = None,
    guide: Guide | None = None,
) -> Recorder:
    recorder = Recorder()
    batcher.submit(
        EngineRequest(
            prompt_token_ids=prompt,
            max_new_tokens=max_new_tokens,
            on_event=recorder,
            end_id=end_id,
            sampling=sampling or SamplingParams(),
            guide=guide,
        )
    )
    return recorder


def alone(batcher: Batcher, prompts: list[list[int]], num: int, **kw: object) -> list[list[int]]:
    return [submit(batcher, prompt, num, **kw).wait().token_ids() for prompt in prompts]  # type: ignore[arg-type]


def together(batcher: Batcher, prompts: list[list[int]], num: int, **kw: object) -> list[list[int]]:
    recorders = [submit(batcher, prompt, num, **kw) for prompt in prompts]  # type: ignore[arg-type]
    return [recorder.wait().token_ids() for recorder in recorders]


def test_it_knows_the_capital_of_france(batcher: Batcher, tokenizer: Tokenizer) -> None:
    output = submit(batcher, chat(tokenizer, QUESTIONS[0])).wait().token_ids()
    assert tokenizer.decode(output) == "The capital of France is Paris."


@pytest.mark.parametrize("kv_cache_precision", ["f16", "f32", "u8"])
def test_greedy_texts_of_sixteen_at_once_are_those_of_each_alone(
    artefact: Artefact, tokenizer: Tokenizer, kv_cache_precision: str
) -> None:
    settings = EngineSettings.from_artefact(
        artefact.path, kv_cache_precision=kv_cache_precision, enable_kv_cache_reuse=False
    )
    batcher = load_batcher(settings)
    prompts = [chat(tokenizer, question) for question in QUESTIONS]
    expected = alone(batcher, prompts, 48)
    assert together(batcher, prompts, 48) == expected
    batcher.close()


def test_sampled_texts_with_a_seed_are_the_same_alone_in_a_batch_and_from_the_cache(
    batcher: Batcher, tokenizer: Tokenizer
) -> None:
    prompts = [chat(tokenizer, question) for question in QUESTIONS[:6]]
    sampling = SamplingParams(temperature=0.9, top_p=0.95, seed=11, frequency_penalty=0.3)
    expected = alone(batcher, prompts, 32, sampling=sampling)
    assert together(batcher, prompts, 32, sampling=sampling) == expected
    other = SamplingParams(temperature=0.9, top_p=0.95, seed=12, frequency_penalty=0.3)
    assert alone(batcher, prompts, 32, sampling=other) != expected


def test_preemption_changes_no_token(artefact: Artefact, tokenizer: Tokenizer) -> None:
    """Room for some 700 tokens, and prompts that want twice as much."""
    settings = EngineSettings.from_artefact(artefact.path, kv_cache_bytes=16 * MIB)
    batcher = load_batcher(settings)
    prompts = [chat(tokenizer, question) for question in QUESTIONS[:12]]
    expected = alone(batcher, prompts, 96, end_id=-1)
    assert batcher.stats().num_preemptions == 0
    assert together(batcher, prompts, 96, end_id=-1) == expected
    assert batcher.stats().num_preemptions > 0
    assert batcher.stats().used_blocks == 0
    batcher.close()


def test_a_repeated_prompt_comes_five_times_faster(batcher: Batcher) -> None:
    rng = np.random.default_rng(7)

    def first_token_cpu_s(prompt: list[int]) -> float:
        """Of all threads; the clock on the wall would show who else wants the processor."""
        start = time.process_time()
        submit(batcher, prompt, 1).wait()
        return time.process_time() - start

    ratios = []
    for _ in range(5):
        prompt = [int(token_id) for token_id in rng.integers(300, 40000, 400)]
        ratios.append(first_token_cpu_s(prompt) / first_token_cpu_s(prompt))
    assert statistics.median(ratios) >= 5


@pytest.mark.parametrize("sampling", [SamplingParams(), SamplingParams(top_p=1.0, seed=1)])
def test_a_schema_is_kept(
    batcher: Batcher, tokenizer: Tokenizer, guides: GuideCompiler, sampling: SamplingParams
) -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    prompt = chat(tokenizer, "Describe a person as JSON.")
    guide = guides.compile("json_schema", json.dumps(schema))
    others = [submit(batcher, chat(tokenizer, question)) for question in QUESTIONS[:3]]
    recorder = submit(batcher, prompt, 150, sampling=sampling, guide=guide).wait()
    for other in others:
        other.wait()
    person = json.loads(tokenizer.decode(recorder.token_ids()))
    assert person.keys() == {"name", "age"}
    assert 0 <= person["age"] <= 120


def test_prompt_log_probs_change_no_token_of_the_batch_around_them(
    batcher: Batcher, tokenizer: Tokenizer
) -> None:
    prompts = [chat(tokenizer, question) for question in QUESTIONS[:8]]
    expected = alone(batcher, prompts, 48)
    recorders = [submit(batcher, prompt, 48) for prompt in prompts[:4]]
    scored = []
    for number in range(4):
        scored.append(Recorder())
        batcher.submit(
            EngineRequest(
                prompt_token_ids=[*range(2000 + number, 2300 + number)],
                max_new_tokens=0,
                on_event=scored[-1],
                returns_prompt_log_probs=True,
            )
        )
    recorders += [submit(batcher, prompt, 48) for prompt in prompts[4:]]
    assert [recorder.wait().token_ids() for recorder in recorders] == expected
    for recorder in scored:
        told = recorder.wait().last.prompt_log_probs
        assert told is not None
        assert np.isfinite(told.log_probs).all()
        assert (told.log_probs[1:] < 0).all()


def test_penalties_end_a_loop(batcher: Batcher, tokenizer: Tokenizer) -> None:
    prompt = tokenizer.encode("la la la la la la la la la").ids
    plain = submit(batcher, prompt, 24, end_id=-1).wait().token_ids()
    sampling = SamplingParams(repetition_penalty=1.5, frequency_penalty=1.0)
    varied = submit(batcher, prompt, 24, end_id=-1, sampling=sampling).wait().token_ids()
    assert len(set(varied)) > len(set(plain))


def test_mixed_requests_with_cancels_free_all_blocks(
    batcher: Batcher, tokenizer: Tokenizer
) -> None:
    rng = np.random.default_rng(5)
    recorders = []
    for number in range(120):
        recorder = Recorder()
        sampling = SamplingParams(top_p=0.9, seed=number) if number % 3 else SamplingParams()
        handle = batcher.submit(
            EngineRequest(
                prompt_token_ids=chat(tokenizer, QUESTIONS[number % 16]),
                max_new_tokens=int(rng.integers(1, 24)),
                on_event=recorder,
                end_id=END_ID,
                num_sequences=2 if number % 7 == 0 else 1,
                sampling=sampling,
            )
        )
        recorders.append(recorder)
        if number % 10 == 0:
            batcher.cancel(handle)
    for recorder in recorders:
        assert recorder.wait().last.error is None
    stats = batcher.stats()
    assert (stats.num_active, stats.used_blocks, stats.free_blocks) == (0, 0, stats.max_blocks)
