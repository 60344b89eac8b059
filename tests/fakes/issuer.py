"""An issuer of JWTs in a process of its own: its keys rotate, its server stalls, lies and dies.

Run as a program it serves GET /jwks as the last POST /mode says: {"mode": ..., "jwks": ...}.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

START_TIMEOUT_S = 20.0
MAX_ANSWER = 2**19


class _Handler(BaseHTTPRequestHandler):
    mode = "good"
    jwks: ClassVar[dict[str, Any]] = {"keys": []}
    num_asked = 0

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        _Handler.mode = content["mode"]
        _Handler.jwks = content.get("jwks", _Handler.jwks)
        self._answer(str(_Handler.num_asked).encode())
        _Handler.num_asked = 0

    def do_GET(self) -> None:
        _Handler.num_asked += 1
        good = json.dumps(_Handler.jwks).encode()
        match _Handler.mode:
            case "good":
                self._answer(good)
            case "stall":
                time.sleep(10)
                self._answer(good)
            case "drip":  # each read is soon, the whole takes for ever
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                for _ in range(100):
                    self.wfile.write(b"[")
                    time.sleep(0.1)
            case "garbage":
                self._answer(b"<html>\xff</html>")
            case "no http":
                self.wfile.write(b"\x00\x01\x02 what?\r\n\r\n")
            case "huge":
                self._answer(b'{"keys": [' + b"{}," * MAX_ANSWER + b"{}]}")
            case "redirect":
                self._answer(b"", status=302, location="/jwks?elsewhere")
            case "error":
                self._answer(good, status=500)

    def _answer(self, content: bytes, *, status: int = 200, location: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if location is not None:
            self.send_header("Location", location)
            _Handler.mode = "good"  # there it would have answered
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_args: object) -> None:
        """Nothing is said of clients that leave."""


class IssuerProcess:
    """Runs from `with` to its end."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def jwks_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/jwks"

    def __enter__(self) -> IssuerProcess:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.kill()

    def start(self) -> None:
        command = [sys.executable, "-m", __name__, str(self.port)]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < deadline, "the issuer did not start"
                time.sleep(0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def answer(self, mode: str, *jwks: dict[str, Any]) -> int:
        """How it answers from now on; returns how often it was asked since the last time."""
        content = {"mode": mode, **({"jwks": {"keys": jwks}} if jwks else {})}
        url = f"http://127.0.0.1:{self.port}/mode"
        asked = urllib.request.Request(url, json.dumps(content).encode(), method="POST")
        with urllib.request.urlopen(asked, timeout=5) as answer:  # noqa: S310  our own
            return int(answer.read())


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), _Handler).serve_forever()
