"""One worker process: a Sanic application on the listening socket that its parent opened.

The parent writes {"settings": {...}, "socket_fd": n, "ready_fd": n} to its standard input: settings
may hold secrets, which an argument list would show to everybody.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import Any

import orjson
from sanic import Sanic
from sanic.config import Config

from frontend.app import create_app
from frontend.processes import die_with_parent
from frontend.settings import Settings
from frontend.telemetry.logs import configure_logging

# A stop signal that comes before Sanic's loop runs for good, right after `after_server_start`, is
# lost: the parent must not take the worker for ready until then.
READY_DELAY_S = 0.02


def main() -> None:
    die_with_parent()
    options = orjson.loads(sys.stdin.buffer.read())
    settings = Settings(**options["settings"])
    configure_logging(settings.log_level, settings.log_format)
    app = create_app(settings, root_pid=os.getppid())

    @app.after_server_start
    async def report_ready(app: Sanic[Config, Any]) -> None:
        asyncio.get_running_loop().call_later(READY_DELAY_S, _report, options["ready_fd"])

    listening = socket.socket(fileno=options["socket_fd"])
    app.run(sock=listening, single_process=True, motd=False)


def _report(ready_fd: int) -> None:
    os.write(ready_fd, b"1")
    os.close(ready_fd)


if __name__ == "__main__":
    main()
