"""The batcher over llama.cpp's kind of memory: slots that share cells."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from tests.unit.triton_models.fake_llama import FakeLlama
from tests.unit.triton_models.fake_model import Recorder, greedy_continuation, submit
from triton_models.batching.batcher import Batcher, BatcherLimits
from triton_models.contract import FinishReason
from triton_models.llama_cpp.backend import LlamaBackend
from triton_models.llama_cpp.cells import CellTable
from triton_models.request import EngineRequest, SamplingParams


def make_batcher(model: FakeLlama, *, reuse: bool = True, max_num_sequences: int = 4) -> Batcher:
    limits = BatcherLimits(
        max_seq_len=64,
        max_input_len=63,
        max_num_sequences=max_num_sequences,
        max_num_tokens=12,
        max_queue_size=2000,
    )
    return Batcher(LlamaBackend(model, enable_prefix_cache=reuse), limits)


@pytest.fixture
def model() -> FakeLlama:
    return FakeLlama(256)


@pytest.fixture
def batcher(model: FakeLlama) -> Iterator[Batcher]:
    batcher = make_batcher(model)
    yield batcher
    assert_idle(batcher)
    batcher.close()
    assert model.is_closed


def assert_idle(batcher: Batcher) -> None:
    deadline = time.monotonic() + 5
    while batcher.stats().num_active or batcher.stats().used_blocks:
        assert time.monotonic() < deadline, batcher.stats()
        time.sleep(0.001)


def num_cached(recorder: Recorder) -> int:
    stats = recorder.wait().last.stats
    assert stats is not None
    return stats.num_cached_tokens


def test_every_request_gets_its_own_tokens_when_many_run_at_once(batcher: Batcher) -> None:
    prompts = [[i, i % 7, *range(i % 11)] for i in range(40)]
    recorders = [submit(batcher, prompt, 10) for prompt in prompts]
    for prompt, recorder in zip(prompts, recorders, strict=True):
        assert recorder.wait().token_ids() == greedy_continuation(prompt, 10)


def test_a_prompt_begins_with_what_a_slot_has_of_it_to_the_token(batcher: Batcher) -> None:
    prompt = [*range(30)]
    answer = submit(batcher, prompt, 8).wait().token_ids()
    assert num_cached(submit(batcher, prompt, 1)) == 29  # one token must be computed
    # what was generated is there too, but for the last token, which nothing was computed from
    assert num_cached(submit(batcher, [*prompt, *answer, 50], 1)) == 37
    assert num_cached(submit(batcher, [*prompt[:13], 90, 91], 1)) == 13
    other = submit(batcher, [5, *prompt], 4)
    assert num_cached(other) == 0
    assert other.token_ids() == greedy_continuation([5, *prompt], 4)


def test_a_running_sequence_shares_its_beginning(batcher: Batcher) -> None:
    recorder = submit(batcher, [*range(20)], 6, num_sequences=4).wait()
    firsts = [e.stats for e in recorder.events if e.stats and not e.finish_reason]
    assert [stats.num_cached_tokens for stats in firsts] == [0, 19, 19, 19]
    for index in range(4):
        assert recorder.token_ids(index) == greedy_continuation([*range(20)], 6)


def test_requests_share_with_those_of_the_same_salt_only(batcher: Batcher) -> None:
    salts = (None, 0, 2**64 - 1)
    prompt = [*range(30)]
    assert [num_cached(submit(batcher, prompt, 2, cache_salt=s)) for s in salts] == [0, 0, 0]
    assert [num_cached(submit(batcher, prompt, 2, cache_salt=s)) for s in salts] == [29, 29, 29]


def test_prompt_log_probs_compute_the_whole_prompt_again(batcher: Batcher) -> None:
    prompt = [*range(30)]
    submit(batcher, prompt, 1).wait()
    scored = submit(batcher, prompt, 1, returns_prompt_log_probs=True).wait()
    assert num_cached(scored) == 0
    told = scored.events[0].prompt_log_probs
    assert told is not None
    assert told.log_probs.shape == (30,)
    assert (told.log_probs[1:] < 0).all()


def test_a_slot_whose_window_has_moved_on_is_not_shared(model: FakeLlama, batcher: Batcher) -> None:
    prompt = [*range(30)]
    submit(batcher, prompt, 2).wait()
    model.lost_window_of = 0
    assert num_cached(submit(batcher, prompt, 2)) == 0


@pytest.mark.parametrize(("can_share", "reuse"), [(False, True), (True, False)])
def test_nothing_is_kept_of_recurrent_models_nor_without_reuse(
    can_share: bool, reuse: bool
) -> None:
    model = FakeLlama(64, num_slots=4, can_share=can_share)
    batcher = make_batcher(model, reuse=reuse)
    prompt = [*range(15)]
    recorders = [submit(batcher, prompt, 9, num_sequences=3) for _ in range(6)]
    for recorder in recorders:
        assert num_cached(recorder) == 0
        assert recorder.token_ids(2) == greedy_continuation(prompt, 9)
    assert_idle(batcher)
    assert model.cells == []
    batcher.close()


def test_a_conversation_goes_on_in_its_slot_and_pushes_no_other_out() -> None:
    batcher = make_batcher(FakeLlama(256, num_slots=2), max_num_sequences=1)
    first, second = [*range(20)], [*range(40, 60)]
    answer = submit(batcher, first, 4).wait().token_ids()
    submit(batcher, second, 4).wait()
    assert num_cached(submit(batcher, [*first, *answer, 9], 4)) == 23
    assert num_cached(submit(batcher, second, 4)) == 19
    batcher.close()


def test_no_more_is_given_up_than_is_needed_and_the_oldest_first() -> None:
    batcher = make_batcher(FakeLlama(60, num_slots=8))
    prompts = [[index, *range(10, 24)] for index in range(3)]
    for prompt in prompts:
        submit(batcher, prompt, 1).wait()
    submit(batcher, [*range(30, 50)], 1).wait()  # 15 of 60 cells are free, 20 are needed
    assert [num_cached(submit(batcher, prompt, 1)) for prompt in reversed(prompts)] == [14, 14, 0]
    batcher.close()


def test_preemption_changes_no_output() -> None:
    model = FakeLlama(50)
    batcher = make_batcher(model)
    sampling = SamplingParams(top_p=1.0, seed=5)
    prompts = [[i, *range(1, 9)] for i in range(8)]
    alone = [submit(batcher, p, 20, sampling=sampling).wait().token_ids() for p in prompts]
    assert batcher.stats().num_preemptions == 0
    together = [submit(batcher, p, 20, sampling=sampling) for p in prompts]
    assert [recorder.wait().token_ids() for recorder in together] == alone
    assert batcher.stats().num_preemptions > 0
    assert_idle(batcher)
    batcher.close()


def test_the_context_is_no_longer_than_the_memory() -> None:
    batcher = make_batcher(FakeLlama(12))
    assert (batcher.max_seq_len, batcher.max_input_len) == (13, 12)
    assert submit(batcher, [1] * 12, 50).wait().token_ids() == greedy_continuation([1] * 12, 1)
    batcher.close()


def test_a_failed_step_leaves_nothing_that_was_not_computed(
    model: FakeLlama, batcher: Batcher, caplog: pytest.LogCaptureFixture
) -> None:
    model.fail_on = 96
    prompt = [*range(20)]
    failed = submit(batcher, [*prompt, 96], 4).wait()
    assert failed.last.error == "Engine error: the step failed"
    model.fail_on = None
    again = submit(batcher, [*prompt, 96], 4)
    assert num_cached(again) == 12  # of the first step, which went well
    assert again.token_ids() == greedy_continuation([*prompt, 96], 4)
    assert "step failed" in caplog.text


def test_memory_that_fails_is_the_error_of_its_requests_and_the_next_are_served(
    model: FakeLlama, batcher: Batcher, caplog: pytest.LogCaptureFixture
) -> None:
    model.fails_to_truncate = True
    failed = [submit(batcher, [number, 1], 4) for number in range(3)]
    assert [one.wait().last.error for one in failed] == ["Engine error: a slot is stuck"] * 3
    model.fails_to_truncate = False
    assert submit(batcher, [1, 2], 3).wait().token_ids() == greedy_continuation([1, 2], 3)
    assert "step failed" in caplog.text


def test_a_thousand_mixed_requests_with_cancels_leave_nothing_behind() -> None:
    """Scarce cells, so that preemption, eviction, cancels and forks meet."""
    rng = np.random.default_rng(3)
    model = FakeLlama(80, num_slots=7)
    batcher = make_batcher(model)
    recorders: list[tuple[list[int], int, int, Recorder]] = []
    for number in range(1000):
        prompt = [int(t) for t in rng.integers(0, 5, rng.integers(1, 20))]
        num_sequences = int(rng.choice([1, 1, 1, 3]))
        num_tokens = int(rng.integers(1, 12))
        recorder = Recorder()
        handle = batcher.submit(
            EngineRequest(
                prompt_token_ids=prompt,
                max_new_tokens=num_tokens,
                on_event=recorder,
                num_sequences=num_sequences,
                returns_prompt_log_probs=number % 4 == 0,
                cache_salt=number % 3 or None,
                priority=number % 2,
            )
        )
        if number % 10 == 0:
            batcher.cancel(handle)
        recorders.append((prompt, num_tokens, num_sequences, recorder))
    for prompt, num_tokens, num_sequences, recorder in recorders:
        recorder.wait()
        assert recorder.last.error is None
        expected = greedy_continuation(prompt, num_tokens)
        was_cancelled = any(e.finish_reason is FinishReason.CANCELLED for e in recorder.events)
        for index in range(num_sequences):
            got = recorder.token_ids(index)
            assert got == (expected[: len(got)] if was_cancelled else expected)
    assert_idle(batcher)
    assert batcher.stats().num_preemptions > 0
    batcher.close()


def test_shared_cells_count_once_and_are_free_when_the_last_slot_gives_them_back() -> None:
    table = CellTable(10, 3)
    table.open(0, None, 0, 0)
    table.take(0, 6)
    table.fill(0, [*range(6)])
    assert table.longest_prefix(np.array([0, 1, 2, 9], np.int32), None) == (0, 3)
    assert table.num_needed(5, 0, 3) == 2
    table.open(1, None, 0, 3)
    table.take(1, 2)
    table.fill(1, [9, 9])
    assert (table.num_used, table.num_free) == (8, 2)
    table.release(0)
    assert (table.num_used, table.num_free) == (5, 2)
    assert table.num_needed(4, 0, 4) == 1  # the fourth is nobody's now but kept
    table.empty(0)
    assert (table.num_used, table.num_free) == (5, 5)
    table.release(1)
    table.empty(1)
    assert (table.num_used, table.num_free) == (0, 10)
