"""A browser page with the fetch loop that API.md shows, in headless Chromium."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from frontend.routes import ROUTES
from tests.e2e.stack import MODEL, Stack, eventually

# A name that somebody else owns, and has made to point at this machine.
REBOUND = "rebound.example"
FLAGS = (
    f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1",
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--remote-debugging-port=0"),
)

# Each chunk that it reads is one event: that is what clients in the field rely on.
FETCH_LOOP = """
(async () => {
  const response = await fetch('/api/v1/generate/stream', {
    method: 'POST',
    headers: {'Content-Type': 'application/json', 'Accept': 'text/event-stream'},
    body: JSON.stringify({prompt: %s, max_tokens: 40, temperature: 0, apply_chat_template: false}),
  });
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  const parsed = [];
  while (true) {
    const {done, value} = await reader.read();
    if (done) break;
    const chunk = decoder.decode(value);
    parsed.push(JSON.parse(chunk.replace('data: ', '')));
  }
  return JSON.stringify(parsed);
})()
"""


NUM_ATTEMPTS = 5


@pytest.fixture
def page(stack: Stack, tmp_path: Path) -> Iterator[ClientConnection]:
    """The DevTools connection of a page at the stack's own origin."""
    program = shutil.which("chromium")
    assert program, "scripts/test installs chromium"
    profile = tmp_path / "profile"
    with (tmp_path / "chromium.log").open("wb") as log:
        browser = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", f"{stack.url}/health"],
            stdout=log,
            stderr=log,
        )
    try:
        port_file = profile / "DevToolsActivePort"
        eventually(lambda: port_file.exists() and port_file.read_text(), timeout_s=30)
        port = int(port_file.read_text().split()[0])
        targets = eventually(lambda: _pages(port, stack.url), timeout_s=30)
        with connect(targets[0]["webSocketDebuggerUrl"], max_size=None) as connection:
            where = "(async () => location.origin + document.readyState)()"
            eventually(lambda: evaluate(connection, where) == f"{stack.url}complete")
            yield connection
    finally:
        browser.terminate()
        browser.wait(20)


def _pages(port: int, url: str) -> list[dict[str, Any]]:
    targets = httpx.get(f"http://127.0.0.1:{port}/json/list", timeout=10).json()
    return [one for one in targets if one["type"] == "page" and one["url"].startswith(url)]


def evaluate(page: ClientConnection, expression: str) -> Any:
    """The value of a JavaScript promise."""
    parameters = {"expression": expression, "awaitPromise": True, "returnByValue": True}
    page.send(json.dumps({"id": 1, "method": "Runtime.evaluate", "params": parameters}))
    while (message := json.loads(page.recv(timeout=60))).get("id") != 1:
        pass
    assert "exceptionDetails" not in message["result"], message
    return message["result"]["result"]["value"]


def run_loop(page: ClientConnection, prompt: str) -> list[dict[str, Any]]:
    """The events that the loop read.

    A browser that is held up for longer than the server's gap between two events reads both at
    once, and the loop cannot take that: here two cores run the browser beside the engine.
    """
    for attempt in range(NUM_ATTEMPTS):
        try:
            parsed: list[dict[str, Any]] = json.loads(
                evaluate(page, FETCH_LOOP % json.dumps(prompt))
            )
            return parsed
        except AssertionError as exc:
            if "after JSON at position" not in str(exc) or attempt == NUM_ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def test_the_fetch_loop_of_the_api_reads_every_token(page: ClientConnection, stack: Stack) -> None:
    for prompt in ("Once upon a time", "你好，世界。" * 8, "😀👍🏽🎉 " * 8):
        parsed = run_loop(page, prompt)
        body = {"prompt": prompt, "max_tokens": 40, "temperature": 0, "apply_chat_template": False}
        plain = httpx.post(f"{stack.url}/api/v1/generate", json=body, timeout=60).json()
        assert "".join(event["token"] for event in parsed) == plain["text"]
        assert [event["finished"] for event in parsed] == [False] * (len(parsed) - 1) + [True]
        assert parsed[-1]["usage"] == plain["usage"]


def show(page: ClientConnection, url: str) -> None:
    page.send(json.dumps({"id": 2, "method": "Page.navigate", "params": {"url": url}}))
    while json.loads(page.recv(timeout=60)).get("id") != 2:
        pass


def count(page: ClientConnection, selector: str) -> int:
    found = evaluate(page, f"(async () => document.querySelectorAll({selector!r}).length)()")
    assert isinstance(found, int)
    return found


def test_the_page_of_the_description_shows_all_of_it(page: ClientConnection, stack: Stack) -> None:
    show(page, f"{stack.url}/docs")
    eventually(lambda: count(page, "section") == len(ROUTES))
    assert count(page, "nav a") == len(ROUTES)
    # the policy lets its own style in
    style = "(async () => getComputedStyle(document.querySelector('header')).position)()"
    assert evaluate(page, style) == "sticky"

    typed = """(async () => {
      const filter = document.getElementById('filter');
      filter.value = 'guided_grammar';
      filter.dispatchEvent(new Event('input'));
      return [...document.querySelectorAll('section')].map((one) => one.id).join(' ');
    })()"""
    assert "post_v1_chat_completions" in evaluate(page, typed).split()
    assert "get_health" not in evaluate(page, typed).split()

    click = "(async () => { document.getElementById('%s').click(); return %s; })()"
    language = "document.documentElement.lang"
    assert {evaluate(page, click % ("language", language)) for _ in range(2)} == {"en", "zh"}
    theme = "document.documentElement.dataset.theme"
    assert {evaluate(page, click % ("theme", theme)) for _ in range(2)} == {"light", "dark"}

    before = count(page, "table")
    opened = "(async () => { document.querySelector('details').open = true; return 1; })()"
    evaluate(page, opened)
    eventually(lambda: count(page, "table") > before)


# What a page can send to any server without asking leave; it may not read the answers.
ATTACKS = """
(async () => {
  const send = (path, options) => fetch('%(url)s' + path, {mode: 'no-cors', ...options});
  const prompt = JSON.stringify({prompt: 'x', max_tokens: 4000, ignore_eos: true});
  const answers = await Promise.all([
    send('/api/v1/models/%(model)s/unload', {method: 'POST'}),
    send('/v1/responses/resp_x/cancel', {method: 'POST', keepalive: true}),
    send('/api/v1/generate', {method: 'POST', body: prompt}),
    send('/api/v1/generate', {method: 'POST', body: new Blob([prompt])}),
  ]);
  navigator.sendBeacon('%(url)s/api/v1/models/%(model)s/unload');
  return answers.map((one) => one.type).join(' ');
})()
"""
NUM_ATTACKS = 5


@pytest.fixture
def other_origin() -> Iterator[str]:
    """Another server on this machine, with pages of its own."""
    handler = partial(SimpleHTTPRequestHandler, directory="/var/empty")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_page_of_another_origin_changes_nothing(
    page: ClientConnection, stack: Stack, other_origin: str
) -> None:
    show(page, other_origin)
    eventually(lambda: evaluate(page, "(async () => location.origin)()") == other_origin)
    num_refused = stack.log().count("cross_origin_refused")
    answers = evaluate(page, ATTACKS % {"url": stack.url, "model": MODEL})
    assert set(answers.split()) == {"opaque"}, "they were sent, and the page sees nothing of them"
    eventually(lambda: stack.log().count("cross_origin_refused") == num_refused + NUM_ATTACKS)
    assert httpx.get(f"{stack.url}/health").json()["model_loaded"]


def test_a_page_whose_name_points_here_sees_nothing(page: ClientConnection, stack: Stack) -> None:
    show(page, f"http://{REBOUND}:{stack.port}/v1/models")
    shown = "(async () => location.host + document.body.innerText)()"
    eventually(lambda: REBOUND in evaluate(page, shown))
    eventually(lambda: "allowed_hosts" in evaluate(page, shown))
    assert MODEL not in evaluate(page, shown)
    unload = f"/api/v1/models/{MODEL}/unload"
    asked = f"(async () => (await fetch('{unload}', {{method: 'POST'}})).status)()"
    assert evaluate(page, asked) == 403
