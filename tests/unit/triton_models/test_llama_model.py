"""The batcher on the real llama.cpp, with models so small that a test takes milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes.gguf_files import NUM_TOKENS, write_llama, write_mamba
from tests.unit.triton_models.fake_model import Recorder, submit
from triton_models.batching.batcher import Batcher, BatcherLimits
from triton_models.llama_cpp.backend import LlamaBackend
from triton_models.llama_cpp.engine import gguf_path
from triton_models.llama_cpp.model import LlamaModel, LlamaModelError, Span
from triton_models.request import SamplingParams

# Log-probs of equal requests differ by so much at most: of keys, values and sums that are rounded
NOISE = 0.02
PROMPTS = [[1, *range(3 + i, 50 + 2 * i)] for i in range(16)]
SAMPLED = SamplingParams(temperature=0.9, top_p=0.95, seed=11, repetition_penalty=1.1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("gguf")
    return {
        "attention": write_llama(folder / "llama.gguf"),
        "window": write_llama(folder / "gemma3.gguf", window=16),
        "recurrent": write_mamba(folder / "mamba.gguf"),
    }


KINDS = ["attention", "window", "recurrent"]


def load(path: Path, **changes: Any) -> LlamaModel:
    values: dict[str, Any] = {
        "kv_cache_bytes": 1 << 20,
        "kv_cache_precision": "f16",
        "max_seq_len": 512,
        "max_num_sequences": 8,
        "max_num_tokens": 32,
        "num_resident": 8,
        "num_threads": 1,
    }
    return LlamaModel(path, **(values | changes))


def make_batcher(path: Path, **changes: Any) -> Batcher:
    limits = BatcherLimits(
        max_seq_len=512, max_input_len=511, max_num_sequences=8, max_num_tokens=32
    )
    return Batcher(LlamaBackend(load(path, **changes)), limits)


@pytest.fixture(params=KINDS)
def batcher(request: pytest.FixtureRequest, files: dict[str, Path]) -> Iterator[Batcher]:
    batcher = make_batcher(files[request.param])
    yield batcher
    assert batcher.stats().used_blocks == 0
    batcher.close()


def run(batcher: Batcher, *, together: bool, salt: int, **kw: Any) -> list[Recorder]:
    """The answers to all prompts. Another salt: nothing is taken from another call's."""
    recorders: list[Recorder] = []
    for prompt in PROMPTS:
        recorders.append(submit(batcher, prompt, 24, cache_salt=salt, **kw))
        if not together:
            recorders[-1].wait()
    return [recorder.wait() for recorder in recorders]


def token_ids(recorders: list[Recorder]) -> list[list[int]]:
    return [recorder.token_ids() for recorder in recorders]


def assert_same(found: Recorder, expected: Recorder) -> None:
    """Up to the first token that was as likely as another, but for what is rounded."""
    for one, other in zip(found.events, expected.events, strict=True):
        assert one.top_log_probs is not None
        assert other.top_log_probs is not None
        assert one.top_log_probs.tolist() == pytest.approx(other.top_log_probs.tolist(), abs=NOISE)
        if one.token_id != other.token_id:
            assert one.top_log_probs[0] - one.top_log_probs[1] < NOISE
            return


def test_answers_of_sixteen_at_once_are_those_of_each_alone(batcher: Batcher) -> None:
    sampling = SamplingParams(num_top_log_probs=2)
    expected = run(batcher, together=False, salt=1, sampling=sampling)
    assert len({tuple(answer) for answer in token_ids(expected)}) > 8
    for _ in range(2):  # the second time in part from what was kept
        found = run(batcher, together=True, salt=2, sampling=sampling)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)


def test_a_seed_gives_the_same_answer_alone_and_at_once(batcher: Batcher) -> None:
    expected = token_ids(run(batcher, together=False, salt=1, sampling=SAMPLED))
    found = token_ids(run(batcher, together=True, salt=2, sampling=SAMPLED))
    other_seed = replace(SAMPLED, seed=12)
    different = token_ids(run(batcher, together=True, salt=2, sampling=other_seed))
    num_same = [
        sum(one == other for one, other in zip(answers, expected, strict=True))
        for answers in (found, different)
    ]
    assert num_same[0] >= 13  # a draw between two tokens may fall within what is rounded
    assert num_same[1] == 0


@pytest.mark.parametrize(("precision", "is_close"), [("f16", True), ("q8_0", True), ("f32", False)])
def test_logits_hardly_depend_on_what_else_is_in_the_step(
    tmp_path: Path, precision: str, is_close: bool
) -> None:
    """f32 is not so: see _KV_TYPES."""
    path = write_llama(tmp_path / "wide.gguf", head=32)
    model = load(path, kv_cache_precision=precision, max_num_tokens=256)
    prompts = [prompt[:48] for prompt in PROMPTS[:4]]
    expected = model.forward([Span(0, prompts[0], 0, 1)]).copy()
    for cuts in ([0, 48], [0, 20, 48], [0, 47, 48]):
        model.truncate(0, 0)
        chunks = [Span(0, prompts[0][i:j], i, 1) for i, j in pairwise(cuts)]
        found = [model.forward([chunk]).copy() for chunk in chunks][-1]
        assert np.abs(found - expected).max() < 1e-5
    model.truncate(0, 0)
    found = model.forward([Span(slot, prompt, 0, 1) for slot, prompt in enumerate(prompts)])[:1]
    assert bool(np.abs(found - expected).max() < 1e-5) == is_close
    model.close()


@pytest.mark.parametrize("kind", ["attention", "window"])
def test_a_beginning_that_was_computed_is_not_computed_again(
    files: dict[str, Path], kind: str
) -> None:
    batcher = make_batcher(files[kind])
    prompt = [1, *range(3, 60)]
    first = submit(batcher, prompt, 12).wait()
    again = submit(batcher, prompt, 12).wait()
    longer = submit(batcher, [*prompt, *first.token_ids(), 9], 1).wait()
    assert again.token_ids() == first.token_ids()
    stats = [one.last.stats for one in (first, again, longer)]
    assert [one.num_cached_tokens for one in stats if one] == [0, 57, 69]
    batcher.close()


def test_what_left_a_sliding_window_is_computed_again(files: dict[str, Path]) -> None:
    """Long answers let llama.cpp overwrite what their windows have passed."""
    batcher = make_batcher(files["window"], kv_cache_bytes=420 * 300)
    prompt = [1, *range(3, 40)]
    expected = submit(batcher, prompt, 150, cache_salt=1).wait().token_ids()
    for salt in range(2, 6):
        assert submit(batcher, prompt, 150, cache_salt=salt).wait().token_ids() == expected
        shorter = submit(batcher, prompt[:-2], 4, cache_salt=salt).wait()
        assert shorter.token_ids() == submit(batcher, prompt[:-2], 4).wait().token_ids()
    batcher.close()


@pytest.mark.parametrize("kind", ["attention", "window"])
def test_preemption_ends_no_request_early(files: dict[str, Path], kind: str) -> None:
    cell_bytes = {"attention": 140, "window": 408}[kind]
    batcher = make_batcher(files[kind], kv_cache_bytes=cell_bytes * 300)
    assert batcher.stats().max_blocks == 256
    sampling = SamplingParams(num_top_log_probs=2)
    expected = run(batcher, together=False, salt=1, sampling=sampling)
    assert batcher.stats().num_preemptions == 0
    found = run(batcher, together=True, salt=2, sampling=sampling)
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)
    assert batcher.stats().num_preemptions > 0
    assert batcher.stats().used_blocks == 0
    batcher.close()


def test_log_probs_are_llama_cpps_own(files: dict[str, Path]) -> None:
    model = load(files["attention"], max_num_tokens=128)
    prompt = PROMPTS[3]
    logits = model.forward([Span(0, prompt, 0, len(prompt))]).astype(np.float64)
    model.close()
    expected = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    batcher = make_batcher(files["attention"])
    sampling = SamplingParams(return_log_probs=True, num_top_log_probs=4)
    recorder = submit(batcher, prompt, 1, sampling=sampling, returns_prompt_log_probs=True).wait()
    batcher.close()
    told = recorder.events[0].prompt_log_probs
    assert told is not None
    own = [expected[index, token_id] for index, token_id in enumerate(prompt[1:])]
    assert told.log_probs[1:].tolist() == pytest.approx(own, abs=1e-3)
    assert told.top_ids.tolist() == np.argsort(-expected[:-1], axis=1)[:, :4].tolist()
    assert recorder.events[0].log_prob == pytest.approx(expected[-1].max(), abs=1e-3)


def test_progress_is_told_from_nothing_to_all(files: dict[str, Path]) -> None:
    told: list[float] = []
    model = load(files["attention"], on_progress=told.append)
    model.close()
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert model.vocab_size == NUM_TOKENS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kv_cache_bytes": 1000}, "kv_cache_bytes is below the"),
        ({"kv_cache_precision": "u8"}, "kv_cache_precision 'u8': not of f16, f32, q8_0"),
        ({"kv_cache_precision": "q8_0"}, "llama|block size"),  # heads of 8
        ({"max_num_sequences": 257}, "max_num_sequences is above llama.cpp's 256"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    files: dict[str, Path], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(LlamaModelError, match=message):
        load(files["attention"], **changes)


def test_a_file_that_llama_cpp_cannot_load_is_refused_in_its_words(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + b"\xff" * 100)
    with pytest.raises(LlamaModelError, match=r"^model\.gguf: .") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_shards_are_loaded_from_the_first(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(LlamaModelError, match="there is no GGUF file in"):
        gguf_path(tmp_path)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    write_llama(folder / "m.gguf", tensors_per_shard=8)
    path = gguf_path(tmp_path)
    assert path.name == "m-00001-of-00003.gguf"
    whole, sharded = load(files["attention"]), load(path)
    span = Span(0, [1, 5, 9], 0, 1)
    assert np.array_equal(sharded.forward([span]), whole.forward([span]))
    whole.close()
    sharded.close()
