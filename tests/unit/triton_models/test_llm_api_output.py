"""The LLM API's growing outputs become events: each token once, and the end as the tokens tell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from triton_models.contract import FinishReason
from triton_models.errors import EngineError
from triton_models.llm_api.output import SequenceReader
from triton_models.request import EngineRequest, SamplingParams, TokenEvent

END = 9


@dataclass
class Completion:
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[Any] | None = None
    finish_reason: str | None = None


@dataclass
class Logprob:
    logprob: float


def reader(*, max_new_tokens: int = 8, **values: Any) -> SequenceReader:
    request = EngineRequest(
        **{"prompt_token_ids": [1], "max_new_tokens": 8, "on_event": lambda event: None, **values}
    )
    return SequenceReader(0, request, max_new_tokens)


def ids(events: list[TokenEvent]) -> list[int]:
    return [event.token_id for event in events if event.token_id is not None]


@pytest.mark.parametrize("cuts", [(5,), (1, 2, 3, 4, 5), (0, 2, 2, 5)])
def test_every_way_of_growing_gives_each_token_once(cuts: tuple[int, ...]) -> None:
    one = reader(max_new_tokens=5)
    tokens = [3, 4, 5, 6, 7]
    events = [
        event
        for cut in cuts
        for event in one.read(Completion(tokens[:cut]), is_last=cut == len(tokens))
    ]
    assert ids(events) == tokens
    assert [event.finish_reason for event in events][-1] is FinishReason.LENGTH
    assert sum(event.finish_reason is not FinishReason.NONE for event in events) == 1


def test_the_end_token_is_an_end_and_no_token() -> None:
    one = reader(end_id=END)
    events = one.read(Completion([3, END]), is_last=False)
    assert (ids(events), events[-1].finish_reason) == ([3], FinishReason.END_ID)
    assert one.read(Completion([3, END, 5]), is_last=True) == []


def test_without_an_end_id_every_token_counts() -> None:
    assert ids(reader().read(Completion([-1, END]), is_last=False)) == [-1, END]


def test_an_end_that_no_token_tells_is_the_apis_word() -> None:
    for said, reason in (
        ("stop", FinishReason.END_ID),
        ("length", FinishReason.LENGTH),
        ("cancelled", FinishReason.CANCELLED),
        (None, FinishReason.END_ID),
    ):
        events = reader().read(Completion([3], finish_reason=said), is_last=True)
        assert (ids(events), events[-1].finish_reason) == ([3], reason)
    with pytest.raises(EngineError, match="took too long"):
        reader().read(Completion([3], finish_reason="timeout"), is_last=True)


def test_a_stop_word_across_steps_is_emitted_and_ends_it() -> None:
    one = reader(stop_words=((4, 5),))
    assert ids(one.read(Completion([3, 4]), is_last=False)) == [3, 4]
    events = one.read(Completion([3, 4, 5, 6]), is_last=False)
    assert (ids(events), events[-1].finish_reason) == ([5], FinishReason.STOP_WORD)


def test_log_probs_are_of_the_chosen_token_wherever_it_stands() -> None:
    one = reader(sampling=SamplingParams(return_log_probs=True, num_top_log_probs=2))
    table = {7: Logprob(-0.5), 8: Logprob(-1.0), 3: Logprob(-4.0)}
    (event,) = one.read(Completion([3], [table]), is_last=False)
    assert (event.log_prob, event.cum_log_prob) == (-4.0, -4.0)
    assert event.top_ids is not None
    assert event.top_ids.tolist() == [7, 8]
    (second,) = one.read(Completion([3, 7], [table, table]), is_last=False)
    assert (second.log_prob, second.cum_log_prob) == (-0.5, -4.5)


def test_log_probs_may_be_bare_numbers() -> None:
    one = reader(sampling=SamplingParams(return_log_probs=True))
    (event,) = one.read(Completion([3], [-0.25]), is_last=False)
    assert event.log_prob == -0.25


@pytest.mark.parametrize("log_probs", [None, [], [{8: Logprob(-1.0)}]])
def test_a_token_without_its_log_prob_fails_the_request(log_probs: list[Any] | None) -> None:
    one = reader(sampling=SamplingParams(return_log_probs=True))
    with pytest.raises(EngineError, match="no log-prob"):
        one.read(Completion([3], log_probs), is_last=False)
