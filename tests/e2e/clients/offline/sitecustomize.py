"""Ends a client's program that wants to reach another machine: no telemetry, no downloads.

Python imports it at the start when its folder is in PYTHONPATH.
"""

from __future__ import annotations

import os
import sys
from typing import Any

LOOPBACK = ("127.0.0.1", "::1", "localhost", None)


def stay_here(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if (host.decode() if isinstance(host, bytes) else host) not in LOOPBACK:
        # an exception would be swallowed by those who only try to reach the network
        os.write(2, f"the client wants to reach {host!r}\n".encode())
        os._exit(97)


sys.addaudithook(stay_here)
