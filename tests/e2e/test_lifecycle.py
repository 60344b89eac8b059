"""Starting and stopping as a person does."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import httpx
import psutil
import pytest

from tests.conftest import link_models
from tests.e2e.answers import CHAT, chat_body, events
from tests.e2e.stack import Stack, eventually

StartStack = Callable[..., Stack]
SECOND_START_S = 30.0  # a few seconds on a quiet machine


@pytest.fixture
def start(built_models: Path, tmp_path: Path) -> Iterator[StartStack]:
    """Starts stacks on one home folder of the test's own."""
    home = link_models(built_models, tmp_path / "home")
    started: list[Stack] = []

    def start(port: int | None = None, triton_of: Stack | None = None) -> Stack:
        log_path = tmp_path / f"serve{len(started)}.log"
        started.append(Stack(home, log_path, port=port, triton_of=triton_of))
        return started[-1]

    yield start
    for stack in started:
        stack.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_and_the_next_start_takes_seconds(
    start: StartStack, number: signal.Signals
) -> None:
    began = monotonic()
    stack = start()
    stack.wait_ready()
    assert monotonic() - began < SECOND_START_S
    eventually(lambda: "curl " in stack.log())  # printed when the first answer may be there already
    assert stack.url in stack.log()
    processes = stack.processes()
    stack.signal(number)
    assert stack.wait_ended() == 0
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert not alive
    assert "Traceback" not in stack.log()


def test_a_running_answer_ends_before_the_server_stops(start: StartStack) -> None:
    stack = start()
    stack.wait_ready()
    body = chat_body("Tell me a story.", max_tokens=100, ignore_eos=True, stream=True)
    with httpx.stream("POST", f"{stack.url}{CHAT}", json=body, timeout=60) as answer:
        stream = events(answer)
        seen = [next(stream)]
        stack.signal(signal.SIGTERM)
        seen += list(stream)
    assert seen[-1] == "[DONE]"
    assert stack.wait_ended() == 0


def test_killing_the_supervisor_leaves_no_process(start: StartStack) -> None:
    stack = start()
    stack.wait_ready()
    processes = stack.processes()
    stack.signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive


def test_a_port_in_use_is_told_in_one_line(stack: Stack, start: StartStack) -> None:
    second = start(port=stack.port)
    assert second.wait_ended() == 1
    (line,) = (line for line in second.log().splitlines() if line.startswith("error:"))
    assert str(stack.port) in line
    assert "--port" in line
    assert "Traceback" not in second.log()


def test_a_frontend_uses_a_triton_that_is_elsewhere(start: StartStack) -> None:
    first = start()
    first.wait_ready()
    second = start(triton_of=first)
    second.wait_ready()
    assert not second.find("tritonserver")
    body = chat_body("Hello", max_tokens=4)
    assert httpx.post(f"{second.url}{CHAT}", json=body, timeout=60).status_code == 200
    metrics = httpx.get(f"{second.url}/metrics", timeout=60).text
    assert "nv_inference_request_success" in metrics
    assert second.stop() == 0
    assert httpx.post(f"{first.url}{CHAT}", json=body, timeout=60).status_code == 200


def test_a_second_server_of_the_same_home_says_what_to_do(start: StartStack) -> None:
    first = start()
    first.wait_ready()
    second = start()
    assert second.wait_ended() == 1
    assert f"(process {first.pid}) runs from" in " ".join(second.log().split())
    assert "--home" in second.log()
    assert first.is_ready()
