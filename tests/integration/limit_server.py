"""Four worker processes over a Triton that counts, and clients that take all that they are given.

Every request has a number, which is its prompt: so it can be said of each what its client saw of
it, whether the engine got it, and what of the bucket is gone for it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import orjson

from frontend.processes import settings_dict, worker_environment
from frontend.settings import Settings
from tests.fakes.server import parse_head, request_bytes
from tests.fakes.triton import FakeModel, FakeTriton

NUM_WORKERS = 4
NUM_CLIENTS = 16
REQUESTS_OF_CONNECTION = 10  # then another one, which another worker may accept
REFUSED_PAUSE_S = 0.01
MORE_S = 0.2
ANSWER_TOKENS = 20  # of which a request may reserve more
RADIX = 900  # of the numbers in prompts, all below the vocabulary's size
PROMPT_TOKENS = 3
TIMEOUT_S = 20.0
_numbers = itertools.count()  # of the requests of all clients


class EngineThread:
    """A Triton whose model `tiny` says 20 tokens, in some time; it remembers what it was asked."""

    def __init__(self) -> None:
        model = FakeModel(
            name="tiny",
            token_ids=[100] * ANSWER_TOKENS,
            tokens_per_response=ANSWER_TOKENS,
            delay_s=0.02,
        )
        self._triton = FakeTriton(model)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine")

    @property
    def url(self) -> str:
        return self._triton.url

    def numbers(self) -> list[int]:
        """Of the numbered requests, as they came."""
        prompts = [one.integers("input_ids") for one in list(self._triton.requests)]
        return [p[0] * RADIX + p[1] for p in prompts if len(p) == PROMPT_TOKENS]

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._triton.__aenter__(), self._loop).result(TIMEOUT_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._triton.stop(), self._loop).result(TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT_S)
        self._loop.close()


class WorkerProcesses:
    """What tests/fakes/killed_workers.py runs, and where they listen."""

    def __init__(self, process: subprocess.Popen[bytes], address: tuple[str, int]) -> None:
        self._process = process
        self.address = address

    def kill(self, number: int, longest_pause_s: float) -> None:
        """So many kill -9s; returns when all workers are there again."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number} {longest_pause_s}\n".encode())
        self._process.stdin.flush()
        self.wait_for("killed")

    def wait_for(self, word: str) -> None:
        assert self._process.stdout is not None
        said = self._process.stdout.readline().decode().strip()
        assert said == word, f"the workers' parent says {said!r}"


@contextmanager
def worker_processes(
    settings: Settings, metrics_dir: Path, *, is_forked: bool
) -> Iterator[WorkerProcesses]:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        listening.setblocking(False)
        options = {
            "settings": settings_dict(settings),
            "socket_fd": listening.fileno(),
            "metrics_dir": str(metrics_dir),
            "is_forked": is_forked,
        }
        metrics_dir.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.killed_workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(listening.fileno(),),
            env=worker_environment(os.environ, metrics_dir),
        )
        with process:
            assert process.stdin is not None
            process.stdin.write(orjson.dumps(options) + b"\n")
            process.stdin.flush()
            workers = WorkerProcesses(process, listening.getsockname())
            try:
                workers.wait_for("ready")
                yield workers
            finally:
                process.stdin.close()
                process.wait(TIMEOUT_S)


@dataclass(slots=True, kw_only=True)
class Asked:
    """One request, as its client knows it. Times of the monotonic clock."""

    number: int
    sent_at: float
    is_numbered: bool = True  # its prompt is its number
    status: int | None = None  # None: the connection broke
    answered_at: float = 0.0
    num_tokens: int = 0  # used, as the answer says
    headers: dict[str, str] = field(default_factory=dict)


class Clients:
    """Several at once ask with one key, again and again, until they are told to stop."""

    def __init__(self, address: tuple[str, int], secret: str, *, max_tokens: int) -> None:
        self._address = address
        self._headers = {"Authorization": f"Bearer {secret}"}
        self._max_tokens = max_tokens
        self._prompt: list[int] | None = None  # None: each request's number
        self.asked: list[Asked] = []
        self.is_stopping = False
        self._refused = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as clients:
            for _ in range(NUM_CLIENTS):
                clients.create_task(self._ask_again_and_again())

    async def ask_once(self) -> Asked:
        reader, writer = await asyncio.open_connection(*self._address)
        try:
            return await self._ask(reader, writer)
        finally:
            writer.close()

    async def until_refused(self) -> None:
        """From now on; some more are refused before it returns."""
        self._refused.clear()
        await self._refused.wait()
        await asyncio.sleep(MORE_S)

    def ask_for_the_least(self) -> None:
        """From now on for two tokens, of which both are used."""
        self._prompt, self._max_tokens = [7], 1

    async def _ask_again_and_again(self) -> None:
        while not self.is_stopping:
            reader, writer = await asyncio.open_connection(*self._address)
            for _ in range(REQUESTS_OF_CONNECTION):
                asked = await self._ask(reader, writer)
                if asked.status is None or self.is_stopping:
                    break
                if asked.status == 429:
                    await asyncio.sleep(REFUSED_PAUSE_S)
            writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Asked:
        is_numbered = self._prompt is None
        asked = Asked(number=next(_numbers), sent_at=time.monotonic(), is_numbered=is_numbered)
        self.asked.append(asked)
        prompt = self._prompt or [*divmod(asked.number, RADIX), 7]
        body = {"model": "tiny", "prompt": prompt, "max_tokens": self._max_tokens}
        try:
            writer.write(request_bytes("POST", "/v1/completions", body, self._headers))
            async with asyncio.timeout(TIMEOUT_S):
                status, asked.headers, answer = await _receive(reader)
        except (ConnectionError, asyncio.IncompleteReadError):
            return asked
        asked.answered_at = time.monotonic()
        asked.status = status
        if status == 429:
            self._refused.set()
        if status == 200:
            asked.num_tokens = answer["usage"]["total_tokens"]
        return asked


async def _receive(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], Any]:
    status, headers = parse_head((await reader.readuntil(b"\r\n\r\n"))[:-4])
    body = await reader.readexactly(int(headers["content-length"]))
    return status, headers, msgspec.json.decode(body)
