"""A client that leaves takes its request out of the engine's batch."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

import httpx
import pytest

from tests.conftest import link_models
from tests.e2e.answers import CHAT, GENERATE, STREAM, chat_body, events, long_body
from tests.e2e.stack import REQUESTS, Stack, eventually

TRIES = 5
# 100 ms are promised; the engine's gauges, by which we see it, are renewed each 100 ms
LIMIT_S = 0.1 + 0.1 + 0.05

# What is promised, where the engine itself shows when a place has become free.
PROMISED_S = 0.1
ROUNDS = 9

NATIVE = {"prompt": "Tell me a story.", "max_tokens": 6000, "ignore_eos": True}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, long_body(stream=True)),
        (CHAT, long_body()),
        (CHAT, long_body(n=3)),
        (STREAM, NATIVE),
        (GENERATE, NATIVE),
        ("/api/v1/batch/generate", {"requests": [NATIVE] * 4}),
    ],
    ids=["chat stream", "chat", "chat n=3", "native stream", "native", "batch"],
)
def test_a_client_that_leaves_frees_its_blocks(
    stack: Stack, path: str, body: dict[str, object]
) -> None:
    eventually(stack.is_engine_idle)
    durations = []
    for _ in range(TRIES):
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", stack.port), timeout=20) as connection:
            connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            eventually(lambda: stack.gauge(REQUESTS, "scheduled") > 0)
        started = perf_counter()
        eventually(stack.is_engine_idle, timeout_s=20, interval_s=0.005)
        durations.append(perf_counter() - started)
    assert median(durations) < LIMIT_S, durations


@pytest.fixture(scope="module")
def narrow_stack(built_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One with room for one sequence in the engine's batch."""
    home = link_models(built_models, tmp_path_factory.mktemp("narrow"))
    stack = Stack(home, home / "serve.log", variables={"INFLIGHT_MAX_NUM_SEQUENCES": "1"})
    try:
        stack.wait_ready()
        yield stack
    finally:
        stack.stop()
        stack.kill()


class FirstEvent(threading.Thread):
    """A streamed answer of one token in a thread; `at` is when it came."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self._stack = stack
        self.at = 0.0

    def run(self) -> None:
        body = chat_body("Hi.", max_tokens=1, stream=True)
        with httpx.stream("POST", self._stack.url + CHAT, json=body, timeout=30) as answer:
            for _ in events(answer):
                self.at = self.at or perf_counter()


def first_event_duration(stack: Stack) -> float:
    waiting = FirstEvent(stack)
    started = perf_counter()
    waiting.start()
    waiting.join()
    return waiting.at - started


@pytest.mark.parametrize("streams", [True, False], ids=["stream", "plain"])
def test_the_next_in_the_queue_gets_the_place_within_100_ms(
    narrow_stack: Stack, streams: bool
) -> None:
    """Less what its own first token takes in an idle engine."""
    stack = narrow_stack
    body: dict[str, Any] = long_body(stream=streams)
    content = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    alone = median(first_event_duration(stack) for _ in range(ROUNDS))
    durations = []
    for _ in range(ROUNDS):
        with socket.create_connection(("127.0.0.1", stack.port), timeout=20) as connection:
            connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            eventually(lambda: stack.gauge(REQUESTS, "scheduled") > 0)
            waiting = FirstEvent(stack)
            waiting.start()
            eventually(lambda: stack.gauge(REQUESTS, "waiting") > 0)
            sleep(0.02)
            assert not waiting.at, "it cannot have begun: the only place is taken"
        left = perf_counter()
        waiting.join()
        durations.append(waiting.at - left)
    assert median(durations) - alone < PROMISED_S, (durations, alone)
