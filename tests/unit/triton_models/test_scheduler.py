"""Who is computed when, and who gives way."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.triton_models.fake_model import FakeModel
from triton_models.batching.backend import Chunk
from triton_models.batching.scheduler import Scheduler
from triton_models.batching.sequence import RequestState, Sequence
from triton_models.cpu.paged import PagedBackend
from triton_models.request import EngineRequest


def make_scheduler(
    num_blocks: int = 32, max_num_sequences: int = 4, max_num_tokens: int = 12
) -> tuple[Scheduler, PagedBackend]:
    backend = PagedBackend(FakeModel(num_blocks))
    scheduler = Scheduler(
        backend, max_num_sequences=max_num_sequences, max_num_tokens=max_num_tokens
    )
    return scheduler, backend


def make_sequence(num_prompt_tokens: int, first_token: int = 0, priority: int = 0) -> Sequence:
    """`first_token` is the number of its arrival, too."""
    prompt = [first_token, *range(1, num_prompt_tokens)]
    request = EngineRequest(
        prompt_token_ids=prompt,
        max_new_tokens=50,
        on_event=lambda event: None,
        priority=priority,
    )
    return Sequence(
        state=RequestState(handle=first_token, request=request),
        index=0,
        token_ids=list(prompt),
        num_prompt_tokens=num_prompt_tokens,
        max_num_tokens=num_prompt_tokens + 50,
        rng=np.random.default_rng(0),
        guide=None,
    )


def run_step(scheduler: Scheduler) -> list[Chunk]:
    chunks = scheduler.schedule()
    for chunk in chunks:
        is_sampled = chunk.is_sampled
        scheduler.commit(chunk)
        if is_sampled:
            chunk.sequence.token_ids.append(50)
    return chunks


def bounds(chunks: list[Chunk]) -> list[tuple[int, int]]:
    return [(chunk.start, chunk.end) for chunk in chunks]


def test_a_long_prompt_is_computed_in_chunks() -> None:
    scheduler, _ = make_scheduler()
    scheduler.add(make_sequence(30))
    assert [bounds(run_step(scheduler)) for _ in range(4)] == [
        [(0, 12)],
        [(12, 24)],
        [(24, 30)],
        [(30, 31)],
    ]


@pytest.mark.parametrize(("length", "expected"), [(13, [(0, 11), (11, 13)]), (1, [(0, 1)])])
def test_no_chunk_is_a_single_token_of_a_longer_prompt(
    length: int, expected: list[tuple[int, int]]
) -> None:
    scheduler, _ = make_scheduler()
    scheduler.add(make_sequence(length))
    assert [bounds(run_step(scheduler))[0] for _ in expected] == expected


def test_decodes_come_before_prompts_and_join_them_in_one_step() -> None:
    scheduler, _ = make_scheduler()
    scheduler.add(make_sequence(4, 1))
    run_step(scheduler)
    scheduler.add(make_sequence(20, 2))
    assert bounds(run_step(scheduler)) == [(4, 5), (0, 11)]


def test_the_batch_has_a_bound() -> None:
    scheduler, _ = make_scheduler(max_num_sequences=2)
    for first in range(3):
        scheduler.add(make_sequence(2, first))
    assert len(run_step(scheduler)) == 2
    assert len(scheduler.waiting) == 1


def test_the_newest_gives_way_when_blocks_run_out_and_comes_back_first() -> None:
    scheduler, backend = make_scheduler(num_blocks=4)
    old, new, late = make_sequence(4, 1), make_sequence(4, 2), make_sequence(4, 3)
    scheduler.add(old)
    scheduler.add(new)
    run_step(scheduler)
    scheduler.add(late)
    while not scheduler.num_preemptions:
        run_step(scheduler)
    assert scheduler.running == [old]
    assert list(scheduler.waiting) == [new, late]
    assert backend.num_free_blocks == 1  # old has the other three
    assert new.num_computed == 0
    assert new.num_output_tokens > 0
    scheduler.remove(old)
    run_step(scheduler)
    assert scheduler.running[0] is new
    scheduler.remove(new)
    scheduler.remove(late)
    assert backend.num_free_blocks == backend.num_blocks


def test_the_queue_is_in_the_order_of_priority_and_then_of_arrival() -> None:
    scheduler, _ = make_scheduler(max_num_sequences=1)
    for number, priority in enumerate([0, 5, -1, 0, 5, -1]):
        scheduler.add(make_sequence(2, number, priority))
    served = []
    while scheduler.waiting:
        run_step(scheduler)
        served.append(scheduler.running[0].token_ids[0])
        scheduler.remove(scheduler.running[0])
    assert served == [2, 5, 0, 3, 1, 4]


def test_the_lowest_priority_gives_way_first_and_then_the_newest() -> None:
    scheduler, _ = make_scheduler(num_blocks=7, max_num_tokens=20)
    low, middle, newer = make_sequence(4, 1, 9), make_sequence(4, 2), make_sequence(4, 3)
    high = make_sequence(4, 4, -1)
    for sequence in (low, middle, newer, high):  # the best came last
        scheduler.add(sequence)
    assert len(run_step(scheduler)) == 4
    gave_way: list[Sequence] = []
    while len(scheduler.running) > 1:
        run_step(scheduler)
        gave_way += [sequence for sequence in scheduler.waiting if sequence not in gave_way]
    assert gave_way == [low, newer, middle]
    assert scheduler.running == [high]
    assert scheduler.waiting == [middle, newer, low]


def test_an_older_request_of_the_same_priority_is_never_overtaken() -> None:
    """One that must wait for blocks holds up what comes after it, however small that is."""
    scheduler, _ = make_scheduler(num_blocks=6)
    scheduler.add(make_sequence(16, 1))
    run_step(scheduler)
    large, small = make_sequence(20, 2), make_sequence(2, 3)
    scheduler.add(large)
    scheduler.add(small)
    for _ in range(3):
        run_step(scheduler)
    assert scheduler.waiting == [large, small]
    scheduler.remove(scheduler.running[0])
    run_step(scheduler)
    assert scheduler.running[0] is large


def test_a_preempted_sequence_finds_its_own_blocks_again() -> None:
    scheduler, _ = make_scheduler(num_blocks=8)
    scheduler.add(make_sequence(9, 1))
    scheduler.add(make_sequence(9, 2))
    while not scheduler.num_preemptions:
        run_step(scheduler)
    preempted = scheduler.waiting[0]
    scheduler.remove(scheduler.running[0])
    chunks = scheduler.schedule()
    assert chunks[0].sequence is preempted
    assert chunks[0].start >= 8


def test_a_removed_sequence_leaves_no_block_in_use() -> None:
    scheduler, backend = make_scheduler()
    running, waiting = make_sequence(20, 1), make_sequence(3, 2)
    scheduler.add(running)
    run_step(scheduler)
    scheduler.add(waiting)
    scheduler.remove(running)
    scheduler.remove(waiting)
    assert backend.num_free_blocks == backend.num_blocks
    assert scheduler.schedule() == []


def test_a_step_too_small_for_a_prompt_beside_the_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="room"):
        make_scheduler(max_num_sequences=12, max_num_tokens=12)
