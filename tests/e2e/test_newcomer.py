"""The way of a newcomer to keys: one is made, used, limited, accounted for and revoked."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.conftest import link_models
from tests.e2e.stack import MODEL, Stack, eventually

HELLO: Any = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
CHANGE_S = 1.0  # within which every worker knows of it, and some for a busy machine
SLACK_S = 4.0


@pytest.fixture(scope="module")
def own_home(built_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return link_models(built_models, tmp_path_factory.mktemp("newcomer"))


@pytest.fixture(scope="module")
def closed(
    stack: Stack, own_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A server that asks for keys, of two workers, over the session's Triton."""
    log = tmp_path_factory.mktemp("log") / "closed.log"
    variables = {"INFLIGHT_AUTHENTICATION": "on"}
    server = Stack(own_home, log, workers=2, triton_of=stack, variables=variables)
    try:
        server.wait_ready()
        yield server
        assert server.stop() == 0
        assert "Traceback" not in server.log()
    finally:
        server.kill()


def inflight(home: Path, *words: str) -> str:
    """What a command says; it succeeds."""
    done = subprocess.run(
        [sys.executable, "-m", "frontend", *words, "--home", str(home)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_key_is_made_used_limited_revoked_and_accounted_for(
    closed: Stack, own_home: Path
) -> None:
    assert httpx.post(f"{closed.url}/v1/chat/completions", json=HELLO).status_code == 401
    made = json.loads(inflight(own_home, "keys", "create", "laptop", "--tenant", "acme", "--json"))
    with openai.OpenAI(base_url=f"{closed.url}/v1", api_key=made["key"], max_retries=0) as client:
        answer = client.chat.completions.with_raw_response.create(**HELLO)
        used = answer.parse().usage
        assert used is not None
        assert int(answer.headers["x-ratelimit-limit-requests"]) > 1000

        inflight(own_home, "keys", "limits", made["id"], "--requests-per-minute", "5")
        eventually(lambda: limit_of(client) == 5, timeout_s=CHANGE_S + SLACK_S)
        answers = [ask(client) for _ in range(6)]
        assert [isinstance(one, openai.RateLimitError) for one in answers] == [False] * 5 + [True]
        assert f"{made['shown']}..." in inflight(own_home, "keys", "list")

        rows = eventually(lambda: rows_of(own_home, 6))
        assert rows[0]["tenant"] == "acme"
        assert int(rows[0]["prompt_tokens"]) == 6 * used.prompt_tokens

        inflight(own_home, "keys", "revoke", made["id"])
        eventually(lambda: is_unknown(client), timeout_s=CHANGE_S + SLACK_S)
    assert made["key"] not in closed.log()


def ask(client: openai.OpenAI) -> Any:
    try:
        return client.chat.completions.create(**HELLO)
    except openai.RateLimitError as exc:
        return exc


def limit_of(client: openai.OpenAI) -> int:
    """As every answer says it: this one asks for nothing."""
    return int(client.models.with_raw_response.list().headers["x-ratelimit-limit-requests"])


def is_unknown(client: openai.OpenAI) -> bool:
    try:
        client.models.list()
    except openai.AuthenticationError:
        return True
    return False


def rows_of(home: Path, num_requests: int) -> list[dict[str, str]]:
    """The tenant's use, when so many of its requests are written."""
    table = inflight(home, "usage", "--by", "tenant", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(table)))
    return rows if rows and int(rows[0]["requests"]) == num_requests else []
