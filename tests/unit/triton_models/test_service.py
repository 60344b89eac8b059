"""Requests of a fake Triton are answered, in order, and let go when their clients leave."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from numpy.typing import NDArray

from tests.unit.triton_models.fake_model import FakeModel, greedy_continuation, make_batcher
from tests.unit.triton_models.test_wire import tensors
from triton_models.batching.batcher import Batcher
from triton_models.errors import InvalidArgumentError
from triton_models.request import Guide
from triton_models.service import Service


class FakeChannel:
    """A client that keeps what it gets."""

    def __init__(self) -> None:
        self.responses: list[Mapping[str, NDArray[Any]]] = []
        self.error: str | None = None
        self.has_left = False
        self.is_broken = False
        self.done = threading.Event()

    def send(self, outputs: Mapping[str, NDArray[Any]], *, is_final: bool) -> None:
        if self.is_broken:
            raise RuntimeError("broken pipe")
        assert not self.done.is_set()
        self.responses.append(outputs)
        if is_final:
            self.done.set()

    def send_error(self, message: str) -> None:
        assert not self.done.is_set()
        self.error = message
        self.done.set()

    def is_cancelled(self) -> bool:
        assert not self.done.is_set(), "asked after the final response: Triton would crash"
        return self.has_left

    def wait(self) -> FakeChannel:
        assert self.done.wait(30), "no final response"
        return self

    def token_ids(self) -> list[int]:
        return [int(t) for r in self.responses for t in r["output_ids"].reshape(-1)]


class FakeGuides:
    """Compiles nothing: what it is asked for is an error, after a while."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def compile(self, guide_type: str, guide: str) -> Guide:
        self.gate.wait(30)
        raise InvalidArgumentError("guided_decoding_guide", "no such grammar")


class Rig:
    def __init__(self, **limits: int) -> None:
        self.model = FakeModel(64)
        self.batcher: Batcher = make_batcher(self.model, **limits)
        self.guides = FakeGuides()
        self.service = Service(
            self.batcher,
            self.guides,
            97,
            exclude_input_in_output=True,
            cancellation_check_period_s=0.005,
        )

    def start(self, request_id: str = "", **values: Any) -> FakeChannel:
        channel = FakeChannel()
        self.service.handle(request_id, tensors(**({"streaming": True} | values)), channel)
        return channel

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.001)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.guides.gate.set()
    rig.wait_until(lambda: not rig.batcher.stats().num_active)
    assert rig.batcher.stats().used_blocks == 0
    rig.service.close()


def test_a_streamed_request_gets_its_tokens_and_one_final_response(rig: Rig) -> None:
    channel = rig.start().wait()
    assert channel.token_ids() == greedy_continuation([1, 2, 3], 16)
    assert channel.responses[-1]["finish_reason"].tolist() == [[2]]


def test_without_streaming_everything_comes_at_once(rig: Rig) -> None:
    channel = rig.start(streaming=False, num_return_sequences=2).wait()
    expected = greedy_continuation([1, 2, 3], 16)
    assert [r["sequence_index"].tolist() for r in channel.responses] == [[[0]], [[1]]]
    assert [r["output_ids"].tolist() for r in channel.responses] == [[[expected]]] * 2


def test_many_requests_are_answered_apart(rig: Rig) -> None:
    channels = {i: rig.start(input_ids=[[i, i + 1]]) for i in range(40)}
    for i, channel in channels.items():
        assert channel.wait().token_ids() == greedy_continuation([i, i + 1], 16)


def test_a_client_that_left_is_noticed_and_its_blocks_are_freed(rig: Rig) -> None:
    rig.model.hold_at_step(2)
    channel = rig.start(request_output_len=60)
    channel.has_left = True
    time.sleep(0.02)
    rig.model.gate.set()
    channel.wait()
    assert channel.responses[-1]["finish_reason"].tolist() == [[4]]


def test_a_stop_request_ends_the_request_of_its_id_and_is_answered(rig: Rig) -> None:
    rig.model.gate.clear()
    channel, other = rig.start("a", request_output_len=60), rig.start("b")
    stop = rig.start("a", stop=True).wait()
    rig.model.gate.set()
    assert stop.responses == [{}]
    assert channel.wait().responses[-1]["finish_reason"].tolist() == [[4]]
    assert other.wait().token_ids() == greedy_continuation([1, 2, 3], 16)


def test_a_stop_request_for_an_unknown_id_is_answered_too(rig: Rig) -> None:
    assert rig.start("nobody", stop=True).wait().responses == [{}]


def test_a_stop_request_without_an_id_is_an_error(rig: Rig) -> None:
    channel = rig.start("", stop=True).wait()
    assert channel.error == "Trying to stop a request but request ID is not provided"


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"beam_width": 4}, "Unsupported tensor: beam_width"),
        ({"request_output_len": 0}, "Invalid argument: request_output_len: 0 is below 1"),
        (
            {"input_ids": [[1] * 64]},
            "Prompt length (64) exceeds maximum input length (63).",
        ),
    ],
)
def test_a_refused_request_gets_its_reason(rig: Rig, values: dict[str, Any], error: str) -> None:
    assert rig.start(**values).wait().error == error


def test_a_grammar_is_compiled_beside_other_requests_and_its_error_is_its_own(rig: Rig) -> None:
    guided = rig.start(guided_decoding_guide_type=[[b"regex"]], guided_decoding_guide=[[b"[a"]])
    assert rig.start().wait().token_ids() == greedy_continuation([1, 2, 3], 16)
    assert not guided.done.is_set()
    rig.guides.gate.set()
    assert guided.wait().error == "Invalid argument: guided_decoding_guide: no such grammar"


def test_a_broken_channel_ends_its_own_request_only(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    broken = FakeChannel()
    broken.is_broken = True
    rig.service.handle("", tensors(streaming=True, request_output_len=60), broken)
    for _ in range(4):
        assert rig.start().wait().token_ids() == greedy_continuation([1, 2, 3], 16)
    assert broken.wait().error == "Engine error: the answer could not be sent"
    assert "send failed" in caplog.text


def test_a_full_queue_is_told_at_once() -> None:
    rig = Rig(max_queue_size=2, max_num_sequences=1)
    rig.model.gate.clear()
    waiting = [rig.start() for _ in range(2)]
    assert rig.start().wait().error == "Exceeds maximum queue size"
    rig.model.gate.set()
    for channel in waiting:
        channel.wait()
    rig.service.close()


def test_close_answers_every_request() -> None:
    rig = Rig()
    rig.model.gate.clear()
    rig.guides.gate.set()
    channels = [rig.start(request_output_len=60) for _ in range(5)]
    closer = threading.Thread(target=rig.service.close)
    closer.start()
    time.sleep(0.05)
    rig.model.gate.set()
    closer.join()
    assert [channel.wait().error for channel in channels] == ["The model is being unloaded"] * 5
    late = rig.start().wait()
    assert late.error == "The model is being unloaded"


def test_no_thread_is_left_after_close() -> None:
    before = threading.active_count()
    rig = Rig()
    rig.guides.gate.set()
    rig.start().wait()
    rig.service.close()
    assert threading.active_count() == before
