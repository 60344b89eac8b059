"""The whole engine but the model: what a request gets, whatever else is going on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.triton_models.fake_model import (
    VOCAB_SIZE,
    FakeModel,
    Recorder,
    greedy_continuation,
    logits_of,
    make_batcher,
    submit,
)
from triton_models.batching.batcher import Batcher
from triton_models.contract import FinishReason
from triton_models.errors import EngineClosedError, PromptTooLongError, QueueFullError
from triton_models.request import EngineRequest, Guide, SamplingParams

SAMPLED = SamplingParams(top_p=1.0, seed=5)


@pytest.fixture
def model() -> FakeModel:
    return FakeModel(64)


@pytest.fixture
def batcher(model: FakeModel) -> Iterator[Batcher]:
    batcher = make_batcher(model)
    yield batcher
    assert_idle(batcher)
    batcher.close()


def assert_idle(batcher: Batcher) -> None:
    deadline = time.monotonic() + 5
    while batcher.stats().num_active or batcher.stats().used_blocks:
        assert time.monotonic() < deadline, batcher.stats()
        time.sleep(0.001)


def test_tokens_come_one_by_one_and_end_at_the_limit(batcher: Batcher) -> None:
    recorder = submit(batcher, [1, 2, 3], 6).wait()
    assert recorder.token_ids() == greedy_continuation([1, 2, 3], 6)
    assert [event.finish_reason for event in recorder.events] == [0] * 5 + [FinishReason.LENGTH]


def test_end_id_ends_the_sequence_and_is_not_emitted(batcher: Batcher) -> None:
    expected = greedy_continuation([1, 2, 3], 6)
    recorder = submit(batcher, [1, 2, 3], 6, end_id=expected[3]).wait()
    assert recorder.token_ids() == expected[: expected.index(expected[3])]
    assert recorder.last.finish_reason is FinishReason.END_ID
    assert recorder.last.token_id is None


def test_a_stop_word_is_matched_over_tokens_and_emitted(batcher: Batcher) -> None:
    expected = greedy_continuation([1, 2, 3], 8)
    recorder = submit(batcher, [1, 2, 3], 8, stop_words=((expected[2], expected[3]),)).wait()
    assert recorder.token_ids() == expected[:4]
    assert recorder.last.finish_reason is FinishReason.STOP_WORD


def test_a_stop_word_does_not_match_into_the_prompt(batcher: Batcher) -> None:
    expected = greedy_continuation([1, 2, 3], 4)
    recorder = submit(batcher, [1, 2, 3], 4, stop_words=((3, expected[0]),)).wait()
    assert recorder.token_ids() == expected


def test_min_tokens_holds_end_id_back(batcher: Batcher) -> None:
    end_id = greedy_continuation([1, 2, 3], 1)[0]
    sampling = SamplingParams(min_tokens=3)
    recorder = submit(batcher, [1, 2, 3], 5, end_id=end_id, sampling=sampling).wait()
    assert len(recorder.token_ids()) >= 3


def test_more_new_tokens_than_the_context_has_are_cut(batcher: Batcher) -> None:
    recorder = submit(batcher, [1] * 60, 1000).wait()
    assert len(recorder.token_ids()) == 4
    assert recorder.last.finish_reason is FinishReason.LENGTH


def test_a_prompt_that_is_too_long_is_refused(batcher: Batcher) -> None:
    with pytest.raises(PromptTooLongError) as info:
        submit(batcher, [1] * 64)
    assert str(info.value) == "Prompt length (64) exceeds maximum input length (63)."


def test_the_context_is_no_longer_than_the_kv_memory() -> None:
    batcher = make_batcher(FakeModel(3))
    assert (batcher.max_seq_len, batcher.max_input_len) == (13, 12)
    assert submit(batcher, [1] * 12, 50).wait().token_ids() == greedy_continuation([1] * 12, 1)
    assert_idle(batcher)
    batcher.close()


def test_every_request_gets_its_own_tokens_when_many_run_at_once(batcher: Batcher) -> None:
    prompts = [[i, i % 7, *range(i % 11)] for i in range(40)]
    recorders = [submit(batcher, prompt, 10) for prompt in prompts]
    for prompt, recorder in zip(prompts, recorders, strict=True):
        assert recorder.wait().token_ids() == greedy_continuation(prompt, 10)


def test_preemption_changes_no_output() -> None:
    model = FakeModel(12)
    batcher = make_batcher(model)
    prompts = [[i, *range(1, 9)] for i in range(8)]
    alone = [submit(batcher, prompt, 20, sampling=SAMPLED).wait().token_ids() for prompt in prompts]
    assert batcher.stats().num_preemptions == 0
    together = [submit(batcher, prompt, 20, sampling=SAMPLED) for prompt in prompts]
    assert [recorder.wait().token_ids() for recorder in together] == alone
    assert batcher.stats().num_preemptions > 0
    assert_idle(batcher)
    batcher.close()


def test_one_step_has_a_bound(model: FakeModel, batcher: Batcher) -> None:
    for recorder in [submit(batcher, range(i, i + 30), 3) for i in range(8)]:
        recorder.wait()
    assert max(model.num_tokens_of_steps) <= 12


def test_a_repeated_prompt_is_taken_from_the_cache(batcher: Batcher) -> None:
    prompt = [*range(30)]
    first = submit(batcher, prompt).wait()
    second = submit(batcher, prompt).wait()
    assert first.token_ids() == second.token_ids()
    assert first.events[0].stats is not None
    assert second.events[0].stats is not None
    assert first.events[0].stats.num_cached_tokens == 0
    assert second.events[0].stats.num_cached_tokens == 28
    assert batcher.stats().reused_blocks == 7


def test_stats_tell_the_way_of_a_request(batcher: Batcher) -> None:
    recorder = submit(batcher, [*range(9)], 3).wait()
    stats = recorder.last.stats
    assert stats is not None
    assert (stats.num_new_blocks, stats.num_reused_blocks) == (3, 0)
    assert (
        stats.arrival_time_ns
        <= stats.first_scheduled_time_ns
        <= stats.first_token_time_ns
        <= stats.last_token_time_ns
    )


def test_several_sequences_share_the_prompt_and_differ_by_their_random_state(
    batcher: Batcher,
) -> None:
    recorder = submit(batcher, [*range(20)], 6, num_sequences=5, sampling=SAMPLED).wait()
    outputs = [recorder.token_ids(index) for index in range(5)]
    assert all(len(output) == 6 for output in outputs)
    assert len({tuple(output) for output in outputs}) > 1
    assert sum(event.is_final for event in recorder.events) == 1
    firsts = [e.stats for e in recorder.events if e.stats and not e.finish_reason]
    assert [stats.num_cached_tokens for stats in firsts] == [0, 16, 16, 16, 16]


def test_the_same_seed_gives_the_same_tokens_alone_and_in_a_batch(batcher: Batcher) -> None:
    alone = submit(batcher, [1, 2, 3], 10, sampling=SAMPLED).wait().token_ids()
    others = [submit(batcher, [i], 15, sampling=SAMPLED) for i in range(10)]
    again = submit(batcher, [1, 2, 3], 10, sampling=SAMPLED).wait().token_ids()
    other_seed = SamplingParams(top_p=1.0, seed=6)
    different = submit(batcher, [1, 2, 3], 10, sampling=other_seed).wait().token_ids()
    for recorder in others:
        recorder.wait()
    assert alone == again != different


def test_a_cancelled_request_ends_with_an_empty_final_event(
    model: FakeModel, batcher: Batcher
) -> None:
    model.hold_at_step(3)
    recorder = Recorder()
    handle = batcher.submit(
        EngineRequest(prompt_token_ids=[1, 2], max_new_tokens=60, on_event=recorder)
    )
    while len(recorder.events) < 3:
        time.sleep(0.001)
    batcher.cancel(handle)
    model.gate.set()
    recorder.wait()
    assert recorder.last.finish_reason is FinishReason.CANCELLED
    assert recorder.last.token_id is None
    batcher.cancel(handle)  # has ended: nothing happens


def test_a_cancelled_request_ends_all_its_sequences(model: FakeModel, batcher: Batcher) -> None:
    model.gate.clear()
    recorder = Recorder()
    request = EngineRequest(
        prompt_token_ids=[1, 2], max_new_tokens=60, on_event=recorder, num_sequences=3
    )
    batcher.cancel(batcher.submit(request))
    model.gate.set()
    recorder.wait()
    assert {event.sequence_index for event in recorder.events if event.finish_reason} == {0, 1, 2}


def test_a_full_queue_refuses_at_once_and_recovers() -> None:
    model = FakeModel(64)
    batcher = make_batcher(model, max_queue_size=3, max_num_sequences=1)
    model.gate.clear()
    recorders = [submit(batcher, [i], 2) for i in range(3)]
    with pytest.raises(QueueFullError, match="Exceeds maximum queue size"):
        submit(batcher, [9], 2)
    model.gate.set()
    for recorder in recorders:
        recorder.wait()
    assert submit(batcher, [9], 2).wait().token_ids() == greedy_continuation([9], 2)
    assert_idle(batcher)
    batcher.close()


def test_a_failed_step_is_the_error_of_its_requests_only(
    model: FakeModel, batcher: Batcher, caplog: pytest.LogCaptureFixture
) -> None:
    model.fail_on = 96
    failed = submit(batcher, [96, 1]).wait()
    assert failed.last.error == "Engine error: the step failed"
    assert failed.last.is_final
    assert submit(batcher, [1, 2], 3).wait().token_ids() == greedy_continuation([1, 2], 3)
    assert "step failed" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_a_thread_that_has_died(
    model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Panic(BaseException):
        """What a library in Rust raises, and `except Exception` does not catch."""

    def panic(*_: object) -> NDArray[np.float32]:
        raise Panic

    monkeypatch.setattr(model, "forward", panic)
    batcher = make_batcher(model)
    assert submit(batcher, [1, 2]).wait().last.error == str(EngineClosedError())
    with pytest.raises(EngineClosedError):
        submit(batcher, [1, 2])
    batcher.close()


class BrokenGuide:
    """Fails on its second token."""

    def __init__(self) -> None:
        self.num_accepted = 0

    def fork(self) -> Guide:
        return BrokenGuide()

    def allowed(self) -> NDArray[np.bool_]:
        if self.num_accepted:
            raise RuntimeError("grammar too complex")
        return np.ones(VOCAB_SIZE, np.bool_)

    def may_end(self) -> bool:
        return False

    def accept(self, token_id: int) -> None:
        self.num_accepted += 1


def test_a_failed_grammar_is_the_error_of_its_request_only(
    batcher: Batcher, caplog: pytest.LogCaptureFixture
) -> None:
    other = submit(batcher, [1, 2], 20)
    failed = submit(batcher, [3, 4], 20, guide=BrokenGuide(), num_sequences=2).wait()
    assert failed.last.error == "Engine error: grammar too complex"
    assert other.wait().token_ids() == greedy_continuation([1, 2], 20)
    assert "sampling failed" in caplog.text


class FixedGuide:
    """Allows one text only, and then the end."""

    def __init__(self, token_ids: list[int]) -> None:
        self.left = list(token_ids)

    def fork(self) -> Guide:
        return FixedGuide(self.left)

    def allowed(self) -> NDArray[np.bool_]:
        allowed = np.zeros(VOCAB_SIZE, np.bool_)
        allowed[self.left[:1]] = True
        return allowed

    def may_end(self) -> bool:
        return not self.left

    def accept(self, token_id: int) -> None:
        assert self.left.pop(0) == token_id


@pytest.mark.parametrize("end_id", [-1, 60])
def test_a_complete_grammar_ends_the_sequence(batcher: Batcher, end_id: int) -> None:
    recorder = submit(batcher, [1], 20, guide=FixedGuide([5, 6, 7]), end_id=end_id).wait()
    assert recorder.token_ids() == [5, 6, 7]
    assert recorder.last.finish_reason is FinishReason.END_ID


def test_log_probs_are_of_the_raw_logits_and_sum_up(batcher: Batcher) -> None:
    sampling = SamplingParams(return_log_probs=True, num_top_log_probs=3)
    recorder = submit(batcher, [1, 2], 4, sampling=sampling).wait()
    history = [1, 2]
    total = 0.0
    for event in recorder.events:
        logits = logits_of(history).astype(np.float64)
        expected = logits - np.log(np.exp(logits).sum())
        assert event.token_id is not None
        assert event.top_ids is not None
        assert event.top_log_probs is not None
        assert event.log_prob == pytest.approx(expected[event.token_id], abs=1e-5)
        assert event.top_ids.tolist() == np.argsort(-expected)[:3].tolist()
        assert event.top_log_probs == pytest.approx(np.sort(expected)[::-1][:3], abs=1e-5)
        total += event.log_prob
        assert event.cum_log_prob == pytest.approx(total)
        history.append(event.token_id)


def expected_prompt_log_probs(prompt: list[int]) -> list[float]:
    values = [0.0]
    for index in range(1, len(prompt)):
        logits = logits_of(prompt[:index]).astype(np.float64)
        values.append(float(logits[prompt[index]] - np.log(np.exp(logits).sum())))
    return values


@pytest.mark.parametrize("num_tokens", [1, 2, 11, 12, 13, 25, 40, 63])
@pytest.mark.parametrize("max_new_tokens", [0, 1, 5])
def test_log_probs_of_the_prompt_are_those_of_each_token_after_the_ones_before_it(
    batcher: Batcher, num_tokens: int, max_new_tokens: int
) -> None:
    prompt = [(7 * i * i) % VOCAB_SIZE for i in range(num_tokens)]
    num_expected = min(max_new_tokens, 64 - num_tokens)
    recorder = submit(
        batcher,
        prompt,
        max_new_tokens,
        returns_prompt_log_probs=True,
        sampling=SamplingParams(num_top_log_probs=3),
    ).wait()
    first, *others = recorder.events
    assert first.prompt_log_probs is not None
    assert all(event.prompt_log_probs is None for event in others)
    expected = expected_prompt_log_probs(prompt)
    assert first.prompt_log_probs.log_probs.tolist() == pytest.approx(expected, abs=1e-5)
    assert first.prompt_log_probs.top_ids.shape == (num_tokens - 1, 3)
    for index, top_ids in enumerate(first.prompt_log_probs.top_ids.tolist(), 1):
        assert top_ids == np.argsort(-logits_of(prompt[:index]))[:3].tolist()
    assert recorder.token_ids() == greedy_continuation(prompt, num_expected)
    assert recorder.last.finish_reason is FinishReason.LENGTH


def test_a_request_for_prompt_log_probs_takes_no_blocks_from_the_cache_but_gives_its_own(
    batcher: Batcher,
) -> None:
    prompt = [*range(30)]
    submit(batcher, prompt, 1).wait()
    scored = submit(batcher, prompt, 0, returns_prompt_log_probs=True, num_sequences=2).wait()
    assert scored.token_ids() == scored.token_ids(1) == []
    cached = [e.stats.num_cached_tokens for e in scored.events if e.stats]
    assert cached == [0, 28]  # the second sequence shares the first one's prompt
    other = [*range(40, 70)]
    submit(batcher, other, 0, returns_prompt_log_probs=True).wait()
    stats = submit(batcher, other, 1).wait().last.stats
    assert stats is not None
    assert stats.num_cached_tokens == 28


def test_prompt_log_probs_change_nothing_for_the_batch_around_them(
    model: FakeModel, batcher: Batcher
) -> None:
    model.gate.clear()
    prompts = [[i, *range(i % 9)] for i in range(12)]
    plain = [submit(batcher, prompt, 10) for prompt in prompts]
    long = [[i, *range(2, 40)] for i in range(6)]
    scored = [
        submit(batcher, prompt, i % 3, returns_prompt_log_probs=True)
        for i, prompt in enumerate(long)
    ]
    sampled = submit(batcher, [1, 2, 3], 10, sampling=SAMPLED)
    model.gate.set()
    for prompt, recorder in zip(prompts, plain, strict=True):
        assert recorder.wait().token_ids() == greedy_continuation(prompt, 10)
    for prompt, recorder in zip(long, scored, strict=True):
        told = recorder.wait().events[0].prompt_log_probs
        assert told is not None
        assert told.log_probs.tolist() == pytest.approx(expected_prompt_log_probs(prompt), abs=1e-5)
        assert told.top_ids.shape == (38, 0)
    again = submit(batcher, [1, 2, 3], 10, sampling=SAMPLED)
    assert sampled.wait().token_ids() == again.wait().token_ids()


def test_preemption_loses_no_log_prob_of_a_prompt() -> None:
    model = FakeModel(24)
    batcher = make_batcher(model)
    others = [submit(batcher, [i, 1], 40) for i in range(3)]
    prompt = [*range(40)]
    scored = submit(batcher, prompt, 3, returns_prompt_log_probs=True, priority=1).wait()
    for other in others:
        other.wait()
    assert batcher.stats().num_preemptions > 0
    told = scored.events[0].prompt_log_probs
    assert told is not None
    assert told.log_probs.tolist() == pytest.approx(expected_prompt_log_probs(prompt), abs=1e-5)
    assert_idle(batcher)
    batcher.close()


def test_the_logits_of_one_step_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triton_models.batching.scheduler.MAX_PROMPT_ROWS", 8)
    model = FakeModel(64)
    batcher = make_batcher(model, max_num_tokens=60)
    model.gate.clear()
    prompts = [[i, *range(i, i + 18)] for i in range(6)]
    scored = [submit(batcher, prompt, 2, returns_prompt_log_probs=True) for prompt in prompts]
    model.gate.set()
    for prompt, recorder in zip(prompts, scored, strict=True):
        told = recorder.wait().events[0].prompt_log_probs
        assert told is not None
        assert told.log_probs.tolist() == pytest.approx(expected_prompt_log_probs(prompt), abs=1e-5)
        assert recorder.token_ids() == greedy_continuation(prompt, 2)
    assert max(model.num_rows_of_steps) <= 8 + 4  # and one to sample from for each sequence
    batcher.close()


def test_a_cancelled_request_tells_no_log_probs_of_its_prompt(
    model: FakeModel, batcher: Batcher
) -> None:
    model.hold_at_step(1)
    recorder = Recorder()
    request = EngineRequest(
        prompt_token_ids=[*range(30)],
        max_new_tokens=1,
        on_event=recorder,
        returns_prompt_log_probs=True,
    )
    handle = batcher.submit(request)
    batcher.cancel(handle)
    model.gate.set()
    recorder.wait()
    assert recorder.last.finish_reason is FinishReason.CANCELLED
    assert recorder.last.prompt_log_probs is None


def test_requests_share_the_cache_with_those_of_the_same_salt_only(batcher: Batcher) -> None:
    prompt = [*range(30)]

    def num_cached(cache_salt: int | None) -> int:
        recorder = submit(batcher, prompt, 4, cache_salt=cache_salt).wait()
        assert recorder.token_ids() == greedy_continuation(prompt, 4)
        stats = recorder.last.stats
        assert stats is not None
        return stats.num_cached_tokens

    salts = (None, 0, 1, 2**64 - 1)
    assert [num_cached(salt) for salt in salts] == [0, 0, 0, 0]
    assert [num_cached(salt) for salt in salts] == [28, 28, 28, 28]


def test_a_better_priority_is_served_first_whenever_it_came(model: FakeModel) -> None:
    batcher = make_batcher(model, max_num_sequences=1)
    model.gate.clear()
    first = submit(batcher, [1, 2], 3)
    while not batcher.stats().num_scheduled:
        time.sleep(0.001)
    recorders = [submit(batcher, [1, 2], 3, priority=priority) for priority in (3, 0, -2, 3)]
    model.gate.set()
    ends = []
    for recorder in (first, *recorders):
        stats = recorder.wait().last.stats
        assert stats is not None
        ends.append(stats.last_token_time_ns)
    assert np.argsort(ends).tolist() == [0, 3, 2, 1, 4]
    batcher.close()


def test_close_answers_what_still_runs_and_refuses_what_comes() -> None:
    model = FakeModel(64)
    batcher = make_batcher(model)
    model.gate.clear()
    recorders = [submit(batcher, [i], 50) for i in range(10)]
    closer = threading.Thread(target=batcher.close)
    closer.start()
    time.sleep(0.05)
    model.gate.set()
    closer.join()
    for recorder in recorders:
        assert recorder.wait().last.error == "The model is being unloaded"
    with pytest.raises(EngineClosedError):
        submit(batcher, [1])
    assert batcher.stats().used_blocks == 0


def test_a_thousand_mixed_requests_with_cancels_leave_nothing_behind() -> None:
    """Scarce blocks, so that preemption, eviction, cancels and forks meet."""
    rng = np.random.default_rng(3)
    batcher = make_batcher(FakeModel(20), max_queue_size=1000)
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
            time.sleep(float(rng.random()) * 0.003)
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
        scores = [e.prompt_log_probs.log_probs for e in recorder.events if e.prompt_log_probs]
        for score in scores:
            assert score.tolist() == pytest.approx(expected_prompt_log_probs(prompt), abs=1e-5)
    assert_idle(batcher)
    assert batcher.stats().num_preemptions > 0
    batcher.close()
