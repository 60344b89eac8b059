"""The anthropic SDK where a server's limits are met: what it retries, when, and what it raises.

Arguments: the base URL; keys whose buckets of requests and of tokens a day are small.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import anthropic

QUESTION: Any = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 16,
}


class Exchanges:
    """Every answer that came, and when."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def note(self, response: Any) -> None:
        wait_ms = response.headers.get("retry-after-ms")
        self.seen.append(
            {"status": response.status_code, "at": time.monotonic(), "retry-after-ms": wait_ms}
        )


def use_up(client: anthropic.Anthropic) -> dict[str, Any]:
    """Ask until it is refused; the error."""
    while True:
        try:
            client.with_options(max_retries=0).messages.create(**QUESTION)
        except anthropic.APIStatusError as exc:
            return told(exc)


def told(exc: anthropic.APIStatusError) -> dict[str, Any]:
    body: Any = exc.body
    return {"class": type(exc).__name__, "status": exc.status_code, "type": body["error"]["type"]}


def main() -> None:
    base_url, requests_key, day_key = sys.argv[1:]
    exchanges = Exchanges()
    http = anthropic.DefaultHttpxClient(event_hooks={"response": [exchanges.note]})
    client = anthropic.Anthropic(base_url=base_url, api_key=requests_key, http_client=http)
    error = use_up(client)
    exchanges.seen.clear()
    message = client.messages.create(**QUESTION)
    found: dict[str, Any] = {
        "requests": error,
        "kind": message.type,
        "exchanges": list(exchanges.seen),
    }
    of_day = client.with_options(api_key=day_key)
    use_up(of_day)
    exchanges.seen.clear()
    try:
        of_day.messages.create(**QUESTION)
    except anthropic.APIStatusError as exc:
        found["day"] = {**told(exc), "exchanges": list(exchanges.seen)}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
