"""The SDKs where limits are met: they wait what they are told, come through, or give up at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from frontend.limits.buckets import LimitSet
from frontend.settings import Settings
from tests.e2e.conftest import ClientPython, RunClient
from tests.fakes.artefacts import publish_model
from tests.fakes.engine import FakeEngine, FakeRepository, Script, one_token_a_step
from tests.fakes.keys import make_key_of
from tests.fakes.server import ServerThread
from tests.fakes.tokenizers import byte_level_tokenizer

REQUESTS = LimitSet(requests_per_minute=60)
TOKENS = LimitSet(tokens_per_minute=3000)
DAY = LimitSet(tokens_per_day=1000)
SLACK_S = 1.0  # of a busy machine
QUOTA = {"class": "RateLimitError", "code": "insufficient_quota"}

Secret = Callable[[LimitSet], str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    home: Path = tmp_path_factory.mktemp("limits")
    publish_model(home, "tiny")
    letters = byte_level_tokenizer().encode("I do not know.").ids
    engine = FakeEngine(Script(steps=one_token_a_step(letters)))
    engine.load("tiny")
    settings = Settings(
        home=home,
        model="tiny",
        authentication="on",
        limits_url=f"lmdb://{home}/limits",
        triton_metrics_url="127.0.0.1:1",  # nobody listens there
    )
    with ServerThread(settings, engine, FakeRepository(engine)) as running:
        yield running


@pytest.fixture
def secret(server: ServerThread) -> Secret:
    """Of a new key with these limits."""
    return lambda limits: make_key_of(server.settings, limits)[1]


def check_waited(exchanges: list[dict[str, Any]]) -> None:
    """It came again when it was told to, and that once was enough."""
    refused, admitted = exchanges
    assert (refused["status"], admitted["status"]) == (429, 200)
    told_s = int(refused["retry-after-ms"]) / 1000
    assert 0 < told_s <= 2
    assert told_s <= admitted["at"] - refused["at"] < told_s + SLACK_S


def test_the_openai_sdk_of_today_comes_through_limits(
    server: ServerThread, secret: Secret, run_client: RunClient, client_python: ClientPython
) -> None:
    found = run_client(
        "openai/limits.py", f"{server.url}/v1", secret(REQUESTS), secret(TOKENS), secret(DAY),
        python=client_python("openai"),
    )  # fmt: skip
    for unit, capacity in (("requests", 60), ("tokens", 3000)):
        kind = {"class": "RateLimitError", "code": "rate_limit_exceeded", "type": unit}
        assert found[unit]["error"] == kind
        check_waited(found[unit]["exchanges"])
        headers = found[unit]["limits"]
        assert headers[f"x-ratelimit-limit-{unit}"] == str(capacity)
        assert int(headers[f"x-ratelimit-remaining-{unit}"]) < capacity / 10
        assert headers[f"x-ratelimit-reset-{unit}"].endswith("s")
    check_waited(found["streamed"]["exchanges"])
    assert found["streamed"]["num_chunks"] > 1
    assert found["asynchronous"]["num_answers"] == 2
    assert found["asynchronous"]["num_refused"] >= 1
    never = found["never"]
    assert (never["class"], never["code"]) == ("BadRequestError", "request_over_limit")
    assert [one["status"] for one in never["exchanges"]] == [400]
    again = found["day_again"]
    assert QUOTA.items() <= found["day"].items()
    assert QUOTA.items() <= again.items()
    [once] = again["exchanges"]  # though two more tries were allowed
    assert (once["status"], once["x-should-retry"]) == (429, "false")


def test_the_openai_sdk_before_version_1_tells_its_user_when_to_come_again(
    server: ServerThread, secret: Secret, run_client: RunClient, client_python: ClientPython
) -> None:
    found = run_client(
        "openai_028/limits.py", f"{server.url}/v1", secret(REQUESTS), secret(DAY),
        python=client_python("openai_028"),
    )  # fmt: skip
    refused = found["requests"]
    assert (refused["class"], refused["code"]) == ("RateLimitError", "rate_limit_exceeded")
    assert refused["retry_after"] == "1"
    assert found["num_choices"] == 1
    assert QUOTA.items() <= found["day"].items()


def test_the_openai_sdk_for_node_comes_through_limits(
    server: ServerThread, secret: Secret, run_client: RunClient, client_python: ClientPython
) -> None:
    found = run_client(
        "node/limits.mjs", f"{server.url}/v1", secret(REQUESTS), secret(DAY),
        python=client_python("node"),
    )  # fmt: skip
    assert found["error"] == {"class": "RateLimitError", "code": "rate_limit_exceeded"}
    check_waited(found["exchanges"])
    assert found["num_choices"] == 1
    assert QUOTA.items() <= found["day"].items()
    assert len(found["day"]["exchanges"]) == 1


def test_the_anthropic_sdk_comes_through_limits(
    server: ServerThread, secret: Secret, run_client: RunClient, client_python: ClientPython
) -> None:
    found = run_client(
        "anthropic/limits.py", server.url, secret(REQUESTS), secret(DAY),
        python=client_python("anthropic"),
    )  # fmt: skip
    kind = {"class": "RateLimitError", "status": 429, "type": "rate_limit_error"}
    assert found["requests"] == kind
    check_waited(found["exchanges"])
    assert found["kind"] == "message"
    assert kind.items() <= found["day"].items()
    assert len(found["day"]["exchanges"]) == 1
