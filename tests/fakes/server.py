"""The real application on a real socket, with a fake engine behind it, in a thread of its own.

The thread runs uvloop as a worker process does; a test in the main thread is an honest client.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvloop
from sanic import Sanic

from frontend.app import create_app
from frontend.settings import Settings
from tests.fakes.engine import FakeEngine, FakeRepository

START_TIMEOUT_S = 20.0


class ServerThread:
    """Serves from `with` to its end; `port` is the one it listens on.

    Without an engine and a repository, those of the Triton that the settings name.
    """

    def __init__(
        self,
        settings: Settings,
        engine: FakeEngine | None,
        repository: FakeRepository | None,
        *,
        send_buffer_bytes: int | None = None,
    ) -> None:
        self.settings = settings
        self._send_buffer_bytes = send_buffer_bytes  # the kernel's, of each connection
        self._engine = engine
        self._repository = repository
        self.port = 0
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="server")

    @property
    def engine(self) -> FakeEngine:
        assert self._engine is not None, "it is a Triton"
        return self._engine

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    def __enter__(self) -> ServerThread:
        self._thread.start()
        assert self._ready.wait(START_TIMEOUT_S), "the server did not start"
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_TIMEOUT_S)
        assert not self._thread.is_alive(), "the server did not stop"

    def num_tasks(self) -> int:
        """Tasks of the server's loop, connections included."""
        assert self._loop is not None
        return len(asyncio.all_tasks(self._loop))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it on the server's loop, until the server ends."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(work, self._loop)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as exc:  # shown by the thread that waits
            self._failure = exc
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        Sanic.test_mode = True  # else its start-up optimizations can be made for one app only
        app = create_app(self.settings, engine=self._engine, repository=self._repository)
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        if self._send_buffer_bytes is not None:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer_bytes)
        listening.setblocking(False)
        self.port = listening.getsockname()[1]
        server: Any = await app.create_server(sock=listening, return_asyncio_server=True)
        try:
            await server.startup()
            await server.before_start()
            await server.after_start()
            await server.start_serving()
            self._ready.set()
            await self._stop.wait()
            await server.before_stop()
        finally:
            await server.close()
            for connection in list(server.connections):
                connection.abort()
            await server.after_stop()
            Sanic.unregister_app(app)


@dataclass(slots=True, kw_only=True)
class Answer:
    """One HTTP answer, as it stood on the wire."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class RawClient:
    """A connection of which every byte and every read can be seen."""

    address: tuple[str, int]
    timeout_s: float = 10.0
    receive_buffer_bytes: int | None = None
    sock: socket.socket = field(init=False)
    _buffer: bytes = b""

    def __post_init__(self) -> None:
        self.sock = socket.socket()
        if self.receive_buffer_bytes is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer_bytes)
        self.sock.settimeout(self.timeout_s)
        self.sock.connect(self.address)

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.sock.close()

    def send(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> None:
        """Send one request; a body that is no bytes is sent as JSON."""
        self.sock.sendall(request_bytes(method, path, body, headers))

    def receive(self, *, has_body: bool = True) -> Answer:
        """Read one whole answer, chunked or not."""
        head, self._buffer = self._read_until(b"\r\n\r\n")
        status, headers = parse_head(head)
        if not has_body:
            return Answer(status=status, headers=headers, body=b"")
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status=status, headers=headers, body=b"".join(self._chunks()))
        length = int(headers["content-length"])
        while len(self._buffer) < length:
            self._buffer += self._recv()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Answer(status=status, headers=headers, body=body)

    def receive_head(self) -> Answer:
        return self.receive(has_body=False)

    def receive_body(self) -> bytes:
        """The chunked body behind a head that was received before."""
        return b"".join(self._chunks())

    def reads(self) -> list[bytes]:
        """What each read of a chunked body brought, chunk framing removed, until the body's end."""
        return list(self.iter_reads())

    def iter_reads(self) -> Iterator[bytes]:
        raw, self._buffer = self._buffer or self._recv(), b""
        while True:
            chunks, is_last = parse_chunks(raw)
            if chunks:
                yield b"".join(chunks)
            if is_last:
                return
            raw = self._recv()

    def wait_for_body(self) -> None:
        """Return when the first bytes of the body are there."""
        self._buffer = self._buffer or self._recv()

    def reset(self) -> None:
        """Close without the usual farewell, as a killed client's kernel may."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def is_closed_by_server(self) -> bool:
        return not self.sock.recv(1)

    def _chunks(self) -> list[bytes]:
        chunks: list[bytes] = []
        while True:
            size_line, self._buffer = self._read_until(b"\r\n")
            size = int(size_line, 16)
            while len(self._buffer) < size + 2:
                self._buffer += self._recv()
            chunk, self._buffer = self._buffer[:size], self._buffer[size + 2 :]
            if not size:
                return chunks
            chunks.append(chunk)

    def _read_until(self, mark: bytes) -> tuple[bytes, bytes]:
        while mark not in self._buffer:
            self._buffer += self._recv()
        found, _, rest = self._buffer.partition(mark)
        return found, rest

    def _recv(self) -> bytes:
        received = self.sock.recv(2**18)
        if not received:
            raise ConnectionError("the server closed the connection in mid-answer")
        return received


def request_bytes(
    method: str, path: str, body: object = None, headers: dict[str, str] | None = None
) -> bytes:
    content = (
        b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    )
    lines = {"Host": "localhost"}
    if body is not None:
        lines |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
    head = "".join(f"{name}: {value}\r\n" for name, value in (lines | (headers or {})).items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + content


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    status_line, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(status_line.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}


def parse_chunks(raw: bytes) -> tuple[list[bytes], bool]:
    """Whole chunks, and whether the last one of the body was among them."""
    chunks: list[bytes] = []
    while raw:
        size_line, _, raw = raw.partition(b"\r\n")
        size = int(size_line, 16)
        if not size:
            return chunks, True
        assert len(raw) >= size + 2, "a chunk was cut by the network: the test's are smaller"
        chunks.append(raw[:size])
        raw = raw[size + 2 :]
    return chunks, False


def parse_events(body: bytes) -> list[Any]:
    """The events of an SSE body; comments are left out, [DONE] stays as a text."""
    assert body.endswith(b"\n\n")
    blocks = [block for block in body.decode().split("\n\n") if block]
    lines = [line for block in blocks for line in block.split("\n")]
    payloads = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [payload if payload == "[DONE]" else json.loads(payload) for payload in payloads]


def wait_until(is_so: Callable[[], bool], timeout_s: float = 5.0) -> float:
    """Poll a condition; return how long it took. Fails when it does not come true."""
    started = time.monotonic()
    while not is_so():
        assert time.monotonic() - started < timeout_s, "it did not come true in time"
        time.sleep(0.001)
    return time.monotonic() - started
