"""What browsers may send: nothing for pages of other origins, nothing to a name that is not ours.

Any page can send a POST without a body, or with one of text/plain, and no browser asks for leave
first: the page cannot read the answer, but by then a model is unloaded. And where nobody has to say
who they are, a page whose own name is made to point at this machine (DNS rebinding) is of the same
origin as we are: it could read everything.
"""

from __future__ import annotations

import functools
import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

from sanic import Request

from frontend.errors import CrossOriginRefused, HostRefused
from frontend.settings import Settings

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})  # they change nothing
# No name on the internet ends so: RFC 6761, RFC 6762, and what ICANN has reserved for private use.
OWN_ENDINGS = (".localhost", ".local", ".internal")


class BrowserGuard:
    """Its check comes before that of keys: it is for requests that a browser sends unasked."""

    def __init__(self, settings: Settings) -> None:
        self._origins = settings.allowed_origins
        self._is_open_to_pages = settings.allows_any_origin
        self._hosts = settings.known_hosts

    async def check(self, request: Request) -> None:
        """
        Raises:
            CrossOriginRefused, HostRefused
        """
        host = request.headers.get("host", "")
        if self._hosts is not None and not is_own_name(host, self._hosts):
            raise HostRefused(host=host)
        if request.method not in SAFE_METHODS and not self._is_open_to_pages:
            self._check_origin(request, host)

    def _check_origin(self, request: Request, host: str) -> None:
        """As CrossOriginProtection of Go 1.25's net/http: what has neither header is no browser."""
        site = request.headers.get("sec-fetch-site", "")
        origin = request.headers.get("origin", "")
        if site in ("same-origin", "none") or origin in self._origins:
            return
        # Without TLS browsers send Sec-Fetch-Site to their own machine only, old ones nowhere.
        if not site and (not origin or origin.partition("://")[2] == host):
            return
        raise CrossOriginRefused(origin=origin or "null")


@functools.lru_cache(maxsize=1024)
def is_own_name(host: str, others: frozenset[str]) -> bool:
    """Whether a request to this host cannot have been sent by a page of a stranger's name.

    Args:
        host: the header, `name:port`; an address is nobody's name.
        others: names that the operator has given, in small letters.
    """
    try:
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return False
    own = {"", "localhost", socket.gethostname().lower()}
    return name in own or name in others or name.endswith(OWN_ENDINGS) or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
