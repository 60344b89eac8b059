"""A Hugging Face hub on loopback: repositories of files, byte ranges, tokens, gates, bad lines.

Speaks what huggingface_hub asks for when it lists and downloads a model: GET of
/api/models/NAME/revision/REVISION, HEAD and GET of /NAME/resolve/REVISION/FILE, the errors by
status and X-Error-Code (huggingface_hub/utils/_http.py: hf_raise_for_status).
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """What the hub has, how it behaves, and what it was asked.

    `token`: what a client must send; None: everybody may read. `cut_after`: bytes of a file after
    which the connection is dropped, once a number of that list. `stall_after`: bytes after which
    nothing more comes until `go_on` is set.
    """

    repositories: dict[str, dict[str, bytes]]
    token: str | None = None
    gated: set[str] = field(default_factory=set)
    cut_after: list[int] = field(default_factory=list)
    stall_after: int | None = None
    stalled: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    damaged: set[str] = field(default_factory=set)  # files that arrive with other bytes
    is_broken: bool = False  # answers 500
    downloads: list[tuple[str, str]] = field(default_factory=list)  # (file, Range header)
    url: str = ""


@contextmanager
def running_hub(hub: FakeHub) -> Iterator[FakeHub]:
    """Serves `hub` at its `url`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        hub.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """The tests look at `downloads`."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = urlsplit(self.path).path
        is_api = path.startswith("/api/models/")
        name, _, rest = (
            path.removeprefix("/api/models")
            .strip("/")
            .partition("/revision/" if is_api else "/resolve/")
        )
        revision, _, file = rest.partition("/")
        if not self._may(name, revision):
            return
        if is_api:
            self._send_json(_describe(name, self.hub.repositories[name]))
        elif file not in self.hub.repositories[name]:
            self._fail(404, "EntryNotFound")
        else:
            self._send_file(name, file, with_body=with_body)

    def _may(self, name: str, revision: str) -> bool:
        given = self.headers.get("Authorization")
        if self.hub.is_broken:
            self._fail(500, "")
        elif given is not None and given != f"Bearer {self.hub.token}":
            self._fail(401, "", "Invalid credentials in Authorization header")
        elif name not in self.hub.repositories or (self.hub.token is not None and given is None):
            self._fail(401, "RepoNotFound")
        elif name in self.hub.gated:
            self._fail(403, "GatedRepo")
        elif revision not in ("main", COMMIT):
            self._fail(404, "RevisionNotFound")
        else:
            return True
        return False

    def _fail(self, status: int, code: str, message: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        if message:
            self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_file(self, name: str, file: str, *, with_body: bool) -> None:
        content = self.hub.repositories[name][file]
        ranged = self.headers.get("Range", "")
        start = int(ranged.removeprefix("bytes=").partition("-")[0]) if ranged else 0
        status = HTTPStatus.PARTIAL_CONTENT if ranged else HTTPStatus.OK
        self.send_response(status)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if ranged:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if with_body:
            self.hub.downloads.append((file, ranged))
            self._send_body(bytes(len(content)) if file in self.hub.damaged else content, start)

    def _send_body(self, content: bytes, start: int) -> None:
        if self.hub.cut_after and len(content) > self.hub.cut_after[0]:
            cut = start + self.hub.cut_after.pop(0)
            self.wfile.write(content[start:cut])
            self.close_connection = True
            self.connection.shutdown(2)
            return
        stop = len(content) if self.hub.stall_after is None else start + self.hub.stall_after
        self.wfile.write(content[start:stop])
        if stop < len(content):
            self.wfile.flush()
            self.hub.stalled.set()
            self.hub.go_on.wait(30)
            self.close_connection = True


def _describe(name: str, files: dict[str, bytes]) -> dict[str, object]:
    """As the hub answers with ?blobs=true: large files have their SHA-256, small ones have none."""
    siblings: list[dict[str, object]] = []
    for file, content in files.items():
        entry: dict[str, object] = {"rfilename": file, "size": len(content), "blobId": "0" * 40}
        if len(content) > 1000:
            sha256 = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
        siblings.append(entry)
    return {"_id": "1", "id": name, "modelId": name, "sha": COMMIT, "siblings": siblings}
