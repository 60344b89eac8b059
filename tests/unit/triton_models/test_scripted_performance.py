"""What a request hears of a scenario, response by response."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from triton_models.contract import FinishReason
from triton_models.request import NO_END_ID, SamplingParams, TokenEvent
from triton_models.scripted.performance import LIKELY, Performance, ScriptedError
from triton_models.scripted.script import PlannedLogProbs, Scenario, Take
from triton_models.wire import WireRequest

END_ID = 2

REQUEST = WireRequest(
    prompt_token_ids=[5],
    max_new_tokens=100,
    end_id=END_ID,
    stop_words=(),
    num_sequences=1,
    sampling=SamplingParams(),
    guide=None,
    streaming=True,
    exclude_input_in_output=True,
    return_perf_metrics=False,
    return_num_input_tokens=False,
    return_num_output_tokens=False,
    returns_prompt_log_probs=False,
    cache_salt=None,
    priority=0,
)


def perform(
    token_ids: tuple[tuple[int, ...], ...],
    request: WireRequest = REQUEST,
    log_probs: tuple[PlannedLogProbs, ...] = (),
    **scenario: Any,
) -> Performance:
    take = Take(
        scenario=Scenario(name="s", text="", **scenario), token_ids=token_ids, log_probs=log_probs
    )
    return Performance(request, take, max_new_tokens=request.max_new_tokens, vocab_size=1000)


def all_responses(performance: Performance) -> list[list[TokenEvent]]:
    responses = []
    while not performance.is_finished:
        responses += performance.step()
    return responses


def tokens_and_reason(responses: list[list[TokenEvent]]) -> tuple[list[int], FinishReason]:
    events = [event for events in responses for event in events]
    return [e.token_id for e in events if e.token_id is not None], events[-1].finish_reason


def test_the_end_comes_in_a_response_of_its_own_without_a_token() -> None:
    responses = all_responses(perform(((10, 11),)))
    assert [[e.token_id for e in events] for events in responses] == [[10], [11], [None]]
    assert responses[-1][-1].finish_reason is FinishReason.END_ID


def test_a_response_brings_as_many_tokens_as_the_scenario_says() -> None:
    responses = all_responses(perform(((10, 11, 12, 13),), tokens_per_response=3))
    assert [[e.token_id for e in events] for events in responses] == [[10, 11, 12], [13, None]]


def test_an_end_id_in_the_script_ends_it_and_is_not_emitted() -> None:
    responses = all_responses(perform(((10, END_ID, 11),)))
    assert tokens_and_reason(responses) == ([10], FinishReason.END_ID)


def test_the_requests_length_cuts_with_its_last_token() -> None:
    responses = all_responses(perform(((10, 11, 12),), replace(REQUEST, max_new_tokens=2)))
    assert tokens_and_reason(responses) == ([10, 11], FinishReason.LENGTH)
    assert len(responses) == 2


def test_a_scenario_may_end_for_its_length() -> None:
    responses = all_responses(perform(((10, 11),), finish="length"))
    assert tokens_and_reason(responses) == ([10, 11], FinishReason.LENGTH)


def test_without_an_end_id_the_script_is_said_again() -> None:
    request = replace(REQUEST, end_id=NO_END_ID, max_new_tokens=5)
    responses = all_responses(perform(((10, 11),), request))
    assert tokens_and_reason(responses) == ([10, 11, 10, 11, 10], FinishReason.LENGTH)


def test_without_an_end_id_a_stop_word_of_one_token_is_said_at_the_end() -> None:
    request = replace(REQUEST, end_id=NO_END_ID, stop_words=((7, 8), (END_ID,)))
    responses = all_responses(perform(((10, 11),), request))
    assert tokens_and_reason(responses) == ([10, 11, END_ID], FinishReason.STOP_WORD)


def test_min_tokens_are_said() -> None:
    request = replace(REQUEST, sampling=SamplingParams(min_tokens=3))
    assert tokens_and_reason(all_responses(perform(((10, 11),), request))) == (
        [10, 11, 10],
        FinishReason.END_ID,
    )


def test_an_empty_script_ends_at_once() -> None:
    request = replace(REQUEST, end_id=NO_END_ID)
    assert tokens_and_reason(all_responses(perform(((),), request))) == ([], FinishReason.END_ID)


def test_a_stop_word_ends_the_answer_and_is_emitted() -> None:
    request = replace(REQUEST, stop_words=((99,), (11, 12)))
    responses = all_responses(perform(((10, 11, 12, 13),), request))
    assert tokens_and_reason(responses) == ([10, 11, 12], FinishReason.STOP_WORD)


def test_sequences_play_the_texts_in_turn() -> None:
    performance = perform(((10,), (20, 21)), replace(REQUEST, num_sequences=3))
    by_sequence: dict[int, list[list[TokenEvent]]] = {}
    for events in all_responses(performance):
        by_sequence.setdefault(events[0].sequence_index, []).append(events)
    found = [tokens_and_reason(by_sequence[index])[0] for index in range(3)]
    assert found == [[10], [20, 21], [10]]


def test_an_error_comes_after_its_tokens() -> None:
    performance = perform(
        ((10, 11, 12),), error="out of memory", error_after=2, tokens_per_response=3
    )
    assert [e.token_id for e in performance.step()[0]] == [10, 11]
    with pytest.raises(ScriptedError, match="out of memory"):
        performance.step()


def test_an_error_behind_the_end_comes_in_place_of_it() -> None:
    performance = perform(((10,),), error="late", error_after=5, finish="length")
    assert performance.step()[0][0].finish_reason is FinishReason.NONE
    with pytest.raises(ScriptedError, match="late"):
        performance.step()


def test_cancelling_ends_every_unfinished_sequence() -> None:
    performance = perform(((10,), (20, 21, 22)), replace(REQUEST, num_sequences=2))
    performance.step()
    performance.step()
    (events,) = performance.cancel()
    assert (events[0].sequence_index, events[0].finish_reason) == (1, FinishReason.CANCELLED)
    assert performance.is_finished


def test_planned_log_probs_are_told_and_summed() -> None:
    planned = (PlannedLogProbs(log_prob=-0.5, top_ids=(10, 44), top_log_probs=(-0.5, -1.5)),)
    request = replace(REQUEST, sampling=SamplingParams(return_log_probs=True, num_top_log_probs=3))
    first, second, _ = all_responses(perform(((10, 11),), request, planned))
    assert (first[0].log_prob, second[0].cum_log_prob) == (-0.5, -0.5 + LIKELY)
    assert first[0].top_ids is not None
    assert first[0].top_log_probs is not None
    assert first[0].top_ids.tolist()[:2] == [10, 44]
    assert first[0].top_log_probs.tolist()[:2] == [-0.5, -1.5]
    assert second[0].top_ids is not None
    assert second[0].top_ids.tolist()[0] == 11


@pytest.mark.parametrize("num_top", [1, 5, 20])
def test_made_up_alternatives_are_different_and_less_and_less_likely(num_top: int) -> None:
    request = replace(REQUEST, sampling=SamplingParams(num_top_log_probs=num_top))
    event = perform(((998,),), request).step()[0][0]
    assert event.top_ids is not None
    assert event.top_log_probs is not None
    assert len(set(event.top_ids.tolist())) == num_top
    assert max(event.top_ids) < 1000
    values = event.top_log_probs.tolist()
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("max_new_tokens", [0, 3])
def test_log_probs_of_the_prompt_are_made_up(max_new_tokens: int) -> None:
    request = replace(
        REQUEST,
        prompt_token_ids=[5, 6, 7],
        max_new_tokens=max_new_tokens,
        num_sequences=2,
        sampling=SamplingParams(num_top_log_probs=2),
        returns_prompt_log_probs=True,
    )
    responses = all_responses(perform(((10, 11, 12, 13),), request))
    told = [e.prompt_log_probs for events in responses for e in events]
    assert told[0] is not None
    assert told[1:] == [None] * (len(told) - 1)
    assert told[0].log_probs.tolist() == [0, LIKELY, LIKELY]
    assert told[0].top_ids.tolist() == [[6, 7], [7, 8]]
    assert told[0].top_log_probs.shape == (2, 2)
    own = [events for events in responses if events[0].sequence_index == 1]
    assert tokens_and_reason(own) == ([10, 11, 12][:max_new_tokens], FinishReason.LENGTH)


def test_cached_tokens_are_told_with_the_first_event() -> None:
    first, second, _ = all_responses(perform(((10, 11),), num_cached_tokens=7))
    assert first[0].stats is not None
    assert first[0].stats.num_cached_tokens == 7
    assert second[0].stats is None
