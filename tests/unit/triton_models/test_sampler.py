"""The sampler against a slow, plain reference."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from triton_models.batching import sampler
from triton_models.batching.log_probs import top_indices
from triton_models.batching.sequence import RequestState, Sequence
from triton_models.request import EngineRequest, SamplingParams

VOCAB_SIZE = 50


def make_sequence(
    sampling: SamplingParams, prompt: list[int], output: list[int], end_id: int = -1
) -> Sequence:
    request = EngineRequest(
        prompt_token_ids=prompt,
        max_new_tokens=99,
        on_event=lambda event: None,
        sampling=sampling,
        end_id=end_id,
    )
    sequence = Sequence(
        state=RequestState(handle=1, request=request),
        index=0,
        token_ids=list(prompt),
        num_prompt_tokens=len(prompt),
        max_num_tokens=999,
        rng=np.random.default_rng(sampling.seed),
        guide=None,
    )
    for token_id in output:
        sequence.token_ids.append(token_id)
        sampler.count_token(sequence, token_id, VOCAB_SIZE)
    return sequence


def reference_probabilities(
    logits: NDArray[np.float32], sampling: SamplingParams, prompt: list[int], output: list[int]
) -> list[float]:
    """Token by token, in Python."""
    adjusted = [float(x) for x in logits]
    counts = Counter(output)
    for token_id in set(prompt) | set(output):
        value = adjusted[token_id]
        penalty = sampling.repetition_penalty
        adjusted[token_id] = value / penalty if value > 0 else value * penalty
    for token_id, count in counts.items():
        adjusted[token_id] -= sampling.presence_penalty + count * sampling.frequency_penalty
    for word in sampling.bad_words:
        n = len(word) - 1
        if n == 0 or (prompt + output)[-n:] == list(word[:-1]):
            adjusted[word[-1]] = -math.inf
    top = max(adjusted)
    weights = [math.exp((x - top) / sampling.temperature) for x in adjusted]
    order = sorted(range(VOCAB_SIZE), key=lambda i: (-weights[i], i))
    if sampling.top_k > 0:
        order = order[: sampling.top_k]
    total = sum(weights[i] for i in order)
    kept, mass = [], 0.0
    for i in order:
        if not 0 < sampling.top_p < 1 or mass < sampling.top_p * total:
            kept.append(i)
        mass += weights[i]
    kept = [i for i in kept if weights[i] >= sampling.min_p]
    total = sum(weights[i] for i in kept)
    return [weights[i] / total if i in kept else 0.0 for i in range(VOCAB_SIZE)]


tokens = st.integers(0, VOCAB_SIZE - 1)
samplings = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.3, 1.0, 2.5]),
    top_k=st.sampled_from([0, 2, 7, 49, 80]),
    top_p=st.sampled_from([0.0, 0.2, 0.85, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.8]),
    presence_penalty=st.sampled_from([0.0, 1.1, -0.5]),
    frequency_penalty=st.sampled_from([0.0, 0.7]),
    bad_words=st.lists(st.lists(tokens, min_size=1, max_size=2).map(tuple), max_size=3).map(tuple),
    seed=st.integers(0, 10),
)


@given(samplings, st.lists(tokens, min_size=1, max_size=9), st.lists(tokens, max_size=9), tokens)
def test_every_token_is_drawn_as_the_reference_says(
    sampling: SamplingParams, prompt: list[int], output: list[int], seed: int
) -> None:
    logits = np.random.default_rng(seed).standard_normal(VOCAB_SIZE, np.float32) * 4
    before = logits.copy()
    if sampling.is_greedy:
        sampling = replace(sampling, top_p=1.0)
    expected = reference_probabilities(logits, sampling, prompt, output)
    sequence = make_sequence(sampling, prompt, output)
    for _ in range(20):
        drawn = sampler.sample(logits, sequence)
        assert drawn.token_id is not None
        assert expected[drawn.token_id] > 0
    assert (logits == before).all()


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(top_p=1.0, temperature=1.5),
        SamplingParams(top_k=5),
        SamplingParams(top_p=0.8),
        SamplingParams(min_p=0.1),
        SamplingParams(top_k=8, top_p=0.7, min_p=0.1, frequency_penalty=0.5),
    ],
)
def test_draws_follow_the_distribution(sampling: SamplingParams) -> None:
    logits = np.random.default_rng(1).standard_normal(VOCAB_SIZE, np.float32) * 2
    expected = np.array(reference_probabilities(logits, sampling, [1, 2], [3, 3, 4]))
    sequence = make_sequence(sampling, [1, 2], [3, 3, 4])
    drawn = Counter(sampler.sample(logits, sequence).token_id for _ in range(6000))
    measured = np.array([drawn[i] / 6000 for i in range(VOCAB_SIZE)])
    assert np.abs(measured - expected).max() < 0.03
    assert (measured[expected == 0] == 0).all()


@pytest.mark.parametrize(
    ("sampling", "is_greedy"),
    [
        (SamplingParams(), True),
        (SamplingParams(temperature=0.7), True),
        (SamplingParams(temperature=0.0, top_p=0.9), True),
        (SamplingParams(top_k=1, temperature=2.0), True),
        (SamplingParams(top_k=2), False),
        (SamplingParams(top_p=1.0), False),
        (SamplingParams(min_p=0.1), False),
    ],
)
def test_greedy_is_what_upstream_calls_so(sampling: SamplingParams, is_greedy: bool) -> None:
    assert sampling.is_greedy is is_greedy


def test_a_bias_is_added_before_anything_else() -> None:
    logits = np.zeros(VOCAB_SIZE, np.float32)
    sampling = SamplingParams(
        bias_token_ids=np.array([7, 9]), bias_values=np.array([3.0, 2.0], np.float32)
    )
    assert sampler.sample(logits, make_sequence(sampling, [1], [])).token_id == 7
    banned = replace(sampling, bad_words=((7,),))
    assert sampler.sample(logits, make_sequence(banned, [1], [])).token_id == 9


def test_end_id_is_not_sampled_before_min_tokens() -> None:
    logits = np.zeros(VOCAB_SIZE, np.float32)
    logits[5] = 9
    sampling = SamplingParams(min_tokens=2)
    early = make_sequence(sampling, [1], [3], end_id=5)
    late = make_sequence(sampling, [1], [3, 3], end_id=5)
    assert sampler.sample(logits, early).token_id != 5
    assert not sampler.is_plain(early)
    assert sampler.sample(logits, late).token_id == 5
    assert sampler.is_plain(late)


def test_nothing_left_to_choose_is_no_token() -> None:
    logits = np.zeros(VOCAB_SIZE, np.float32)
    everything = SamplingParams(bad_words=tuple((i,) for i in range(VOCAB_SIZE)), top_p=1.0)
    assert sampler.sample(logits, make_sequence(everything, [1], [])).token_id is None


def test_greedy_takes_the_first_of_equal_tokens_in_every_row() -> None:
    logits = np.zeros((3, VOCAB_SIZE), np.float32)
    logits[1, [4, 8]] = 1
    assert sampler.greedy(logits) == [0, 4, 0]


@given(st.lists(st.integers(-40, 40), min_size=1, max_size=60), st.integers(1, 60))
def test_top_indices_are_a_stable_sort(values: list[int], k: int) -> None:
    array = np.array(values, np.float32)
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
    assert top_indices(array, k).tolist() == expected


def test_one_draw_takes_one_random_number() -> None:
    """Else a sequence's tokens would depend on what was drawn before."""
    logits = np.random.default_rng(2).standard_normal(VOCAB_SIZE, np.float32)
    for sampling in (SamplingParams(top_p=1.0), SamplingParams(top_k=3), SamplingParams(min_p=0.2)):
        sequence = make_sequence(sampling, [1], [])
        sampler.sample(logits, sequence)
        expected = np.random.default_rng(sampling.seed)
        expected.random()
        assert sequence.rng.random() == expected.random()
