"""What a browser may send: pages of other origins, and names that an attacker has made point here.

Each request is made of the headers that browsers send; a real one tries it in tests/e2e.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from frontend.access.identity import Scope
from frontend.api.browsers import is_own_name
from frontend.routes import ROUTES
from frontend.settings import Settings
from tests.fakes.access import Keys, ask
from tests.fakes.engine import FakeEngine, FakeRepository
from tests.fakes.server import RawClient, ServerThread

EVIL = "https://evil.example"
CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "hi"}]}
UNLOAD = "/api/v1/models/tiny/unload"
CHANGING = [route for route in ROUTES if route.method != "GET"]


def with_origins(settings: Settings, engine: FakeEngine, origins: str) -> ServerThread:
    return ServerThread(replace(settings, cors_origins=origins), engine, FakeRepository(engine))


@pytest.fixture(params=["off", "on"])
def any_server(request: pytest.FixtureRequest) -> ServerThread:
    """With and without authentication."""
    name = {"off": "server", "on": "closed"}[request.param]
    running: ServerThread = request.getfixturevalue(name)
    return running


def test_no_route_takes_a_change_from_a_page_of_another_origin(
    any_server: ServerThread, engine: FakeEngine
) -> None:
    assert CHANGING
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Origin": EVIL}
    for route in CHANGING:
        path = re.sub(r"<[^>]*>", "tiny", route.path)
        for more, word in (({}, "may not use"), ({"Accept-Language": "zh"}, "无权使用")):
            answer = ask(any_server, route.method, path, headers={**headers, **more})
            assert answer.status == 403, path
            error = answer.json["error"]
            assert word in error["message"], path
            assert EVIL in error["message"], path
            codes = {"cross_origin_refused", "CROSS_ORIGIN_REFUSED", "permission_error"}
            assert error.get("code", error.get("type")) in codes, path
    assert "tiny" in engine.models, "it was not unloaded"
    assert engine.streams == []


def test_a_page_that_has_a_key_is_refused_like_any_other(closed: ServerThread, keys: Keys) -> None:
    _, secret = keys.make(*Scope)
    answer = ask(closed, "POST", UNLOAD, secret, headers={"Origin": EVIL})
    assert (answer.status, answer.json["error"]["code"]) == (403, "CROSS_ORIGIN_REFUSED")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded"])
def test_a_form_of_another_page_is_refused_unread(
    server: ServerThread, engine: FakeEngine, content_type: str
) -> None:
    headers = {"Content-Type": content_type, "Origin": "null", "Sec-Fetch-Site": "cross-site"}
    assert ask(server, "POST", CHAT, body=HELLO, headers=headers).status == 403
    assert engine.streams == []


# As the table of Go's own test: method, Sec-Fetch-Site, Origin, whether it passes. "SELF" is ours.
CASES: list[tuple[str, str | None, str | None, bool]] = [
    ("POST", "same-origin", None, True),
    ("POST", "none", None, True),
    ("POST", "cross-site", None, False),
    ("POST", "same-site", None, False),
    ("POST", "same-site", "SELF", False),
    ("POST", "anything", None, False),
    ("POST", None, None, True),
    ("POST", None, "SELF", True),
    ("POST", None, EVIL, False),
    ("POST", None, "null", False),
    ("POST", None, "http://localhost:3000", False),
    ("POST", "same-origin", EVIL, True),
    ("GET", "cross-site", EVIL, True),
    ("HEAD", "cross-site", EVIL, True),
    ("OPTIONS", "cross-site", EVIL, True),
    ("DELETE", "cross-site", EVIL, False),
    ("PUT", "cross-site", EVIL, False),
]


def test_who_sent_it_is_told_by_what_browsers_say(server: ServerThread) -> None:
    own = f"http://localhost:{server.port}"
    for method, site, origin, passes in CASES:
        headers = {"Host": f"localhost:{server.port}"}
        if site is not None:
            headers["Sec-Fetch-Site"] = site
        if origin is not None:
            headers["Origin"] = own if origin == "SELF" else origin
        path = "/v1/models" if method in ("GET", "HEAD", "OPTIONS") else "/v1/completions"
        body: Any = {"prompt": "hi"} if method == "POST" else None
        with RawClient(server.address) as client:
            client.send(method, path, body, headers)
            status = client.receive_head().status
        assert (status != 403) == passes, (method, site, origin)
        assert not passes or status in (200, 204), (method, site, origin)


def test_pages_that_the_setting_names_are_let_in(
    tiny_settings: Settings, engine: FakeEngine
) -> None:
    page = "http://localhost:3000"
    headers = {"Sec-Fetch-Site": "same-site", "Origin": page}
    with with_origins(tiny_settings, engine, f"https://a.example, {page}") as server:
        assert ask(server, "POST", CHAT, body=HELLO, headers=headers).status == 200
        other = {**headers, "Origin": EVIL}
        refused = ask(server, "POST", CHAT, body=HELLO, headers=other)
        assert refused.status == 403
        assert "cors_origins" in refused.json["error"]["message"]
    with with_origins(tiny_settings, engine, "*") as server:
        assert ask(server, "POST", CHAT, body=HELLO, headers=other).status == 200


# ---- names that an attacker has made point here (DNS rebinding)


@pytest.mark.parametrize(
    ("host", "is_known"),
    [
        ("localhost:8000", True),
        ("LOCALHOST.", True),
        ("app.localhost", True),
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("192.168.1.7", True),
        ("host.docker.internal:8000", True),
        ("printer.local", True),
        ("gpu.example.com:8000", True),
        ("GPU.example.com", True),
        ("evil.example:8000", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost@evil.example", False),
        ("[::1", False),
    ],
)
def test_a_name_that_is_not_ours_is_refused(host: str, is_known: bool) -> None:
    assert is_own_name(host, frozenset({"gpu.example.com"})) == is_known


def test_nothing_is_shown_to_a_page_whose_name_points_here(
    tiny_settings: Settings, engine: FakeEngine, closed: ServerThread
) -> None:
    rebound = {"Host": "evil.example:8000", "Origin": "http://evil.example:8000"}
    with ServerThread(tiny_settings, engine, FakeRepository(engine)) as server:
        for method, path in (("GET", "/v1/models"), ("POST", UNLOAD), ("GET", "/health")):
            answer = ask(server, method, path, headers=rebound)
            assert answer.status == 403, path
            assert "allowed_hosts" in answer.json["error"]["message"]
        chinese = ask(server, "GET", "/health", headers={**rebound, "Accept-Language": "zh"})
        assert "为名" in chinese.json["error"]["message"]
    assert "tiny" in engine.models
    known = replace(tiny_settings, allowed_hosts="evil.example")
    with ServerThread(known, engine, FakeRepository(engine)) as server:
        assert ask(server, "GET", "/v1/models", headers=rebound).status == 200
    # who has to send a key is asked for it, whatever the name
    assert ask(closed, "GET", "/v1/models", headers=rebound).status == 401
