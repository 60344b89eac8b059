"""The llm_api engine's ends: closed while it works, dead and started again, cancelled at once.

What it does with a whole LLM, a real Triton shows (tests/integration/test_llm_api.py).
"""

from __future__ import annotations

import asyncio
import importlib
import queue
import sys
import time
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from triton_models.contract import FinishReason
from triton_models.errors import EngineClosedError, EngineDiedError, EngineError
from triton_models.request import EngineRequest, TokenEvent


class Result:
    """Gives one token a step, for ever; or dies."""

    def __init__(self, llm: Llm) -> None:
        self._llm = llm
        self.outputs = [SimpleNamespace(token_ids=[], logprobs=None, finish_reason=None)]
        self.finished = False

    def __aiter__(self) -> Result:
        return self

    async def __anext__(self) -> Result:
        await asyncio.sleep(0.001)
        if self._llm.is_dying:
            raise RuntimeError("worker lost")
        self.outputs[0].token_ids.append(7)
        return self

    def abort(self) -> None:
        self._llm.num_aborted += 1


class Llm:
    def __init__(self) -> None:
        self.is_dying = False
        self.is_shut_down = False
        self.num_aborted = 0

    def generate_async(self, **arguments: Any) -> Result:
        return Result(self)

    async def get_stats_async(self, timeout: float) -> Any:  # noqa: ASYNC109, its name upstream
        await asyncio.sleep(timeout)
        yield {}

    def shutdown(self) -> None:
        self.is_shut_down = True


class Rig:
    def __init__(self, engine_module: Any) -> None:
        self.made: list[Llm] = []
        self.num_failures = 0  # of the next starts
        limits = engine_module.LlmLimits(
            max_seq_len=1000,
            max_input_len=900,
            vocab_size=50,
            max_num_sequences=4,
            max_queue_size=4,
        )
        self.engine = engine_module.LlmEngine(self._make, limits, {})
        self.is_closed = False

    def _make(self) -> Llm:
        if self.num_failures:
            self.num_failures -= 1
            raise RuntimeError("no memory")
        self.made.append(Llm())
        return self.made[-1]

    def submit(self) -> tuple[int, queue.Queue[TokenEvent]]:
        events: queue.Queue[TokenEvent] = queue.Queue()
        request = EngineRequest(prompt_token_ids=[1], max_new_tokens=900, on_event=events.put)
        return self.engine.submit(request), events

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.engine.close()


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    upstream = ModuleType("upstream")
    upstream.RequestError = type("RequestError", (RuntimeError,), {})  # type: ignore[attr-defined]
    upstream.sampling_params = lambda **values: values  # type: ignore[attr-defined]
    name = "triton_models.llm_api"
    monkeypatch.setitem(sys.modules, f"{name}.upstream", upstream)
    monkeypatch.setattr(importlib.import_module(name), "upstream", upstream, raising=False)
    monkeypatch.delitem(sys.modules, f"{name}.engine", raising=False)
    rig = Rig(importlib.import_module(f"{name}.engine"))
    yield rig
    rig.close()
    monkeypatch.delitem(sys.modules, f"{name}.engine")


def final(events: queue.Queue[TokenEvent]) -> TokenEvent:
    while True:
        event = events.get(timeout=10)
        if event.is_final:
            return event


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_cancelling_ends_the_request_and_aborts_it(rig: Rig) -> None:
    handle, events = rig.submit()
    events.get(timeout=10)
    rig.engine.cancel(handle)
    assert final(events).finish_reason is FinishReason.CANCELLED
    wait_until(lambda: rig.made[0].num_aborted == 1)
    rig.engine.cancel(handle)  # it has ended: left alone
    assert rig.engine.stats().num_active == 0


def test_a_request_cancelled_before_it_began_has_its_one_event(rig: Rig) -> None:
    handle, events = rig.submit()
    rig.engine.cancel(handle)
    assert final(events).finish_reason is FinishReason.CANCELLED
    time.sleep(0.02)
    assert events.empty()


def test_closing_fails_what_runs_and_shuts_the_llm_down(rig: Rig) -> None:
    _, events = rig.submit()
    events.get(timeout=10)
    rig.close()
    assert final(events).error == str(EngineClosedError())
    assert rig.made[0].is_shut_down
    with pytest.raises(EngineClosedError):
        rig.submit()


def test_a_dead_llm_is_started_again_until_it_runs(rig: Rig) -> None:
    all_events = [rig.submit()[1] for _ in range(3)]
    rig.num_failures = 2
    rig.made[0].is_dying = True
    for events in all_events:
        assert str(final(events).error).startswith("The engine has died")
    with pytest.raises(EngineDiedError):
        rig.submit()
    wait_until(lambda: len(rig.made) == 2)

    def is_back() -> bool:
        try:
            rig.submit()
        except EngineError:
            return False
        return True

    wait_until(is_back)
    assert rig.made[0].is_shut_down
    assert not rig.made[1].is_shut_down


def test_closing_while_it_is_started_again_leaves_no_llm_running(rig: Rig) -> None:
    _, events = rig.submit()
    rig.made[0].is_dying = True
    final(events)
    rig.close()
    assert all(llm.is_shut_down for llm in rig.made)
