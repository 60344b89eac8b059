"""The openai SDK where a server's limits are met: what it retries, when, and what it raises.

Arguments: the base URL; keys whose buckets of requests, of tokens and of tokens a day are small.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import openai

QUESTION: Any = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16}
ANSWER_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry")


class Exchanges:
    """Every answer that came, and when."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def note(self, response: Any) -> None:
        headers = {name: response.headers.get(name) for name in ANSWER_HEADERS}
        self.seen.append({"status": response.status_code, "at": time.monotonic(), **headers})

    async def note_async(self, response: Any) -> None:
        self.note(response)

    def of_last_call(self) -> list[dict[str, Any]]:
        seen, self.seen = self.seen, []
        return seen


def use_up(client: openai.OpenAI, **options: Any) -> dict[str, Any]:
    """Ask until it is refused; the error."""
    while True:
        try:
            client.with_options(max_retries=0).chat.completions.create(
                model="tiny", **{**QUESTION, **options}
            )
        except openai.APIStatusError as exc:
            return told(exc)


def told(exc: openai.APIStatusError) -> dict[str, Any]:
    return {"class": type(exc).__name__, "code": exc.code, "type": exc.type}


def waited_for(client: openai.OpenAI, exchanges: Exchanges) -> dict[str, Any]:
    error = use_up(client)
    exchanges.of_last_call()
    answer = client.chat.completions.with_raw_response.create(model="tiny", **QUESTION)
    return {
        "error": error,
        "exchanges": exchanges.of_last_call(),
        "limits": {
            name: value
            for name, value in answer.headers.items()
            if name.startswith(("x-ratelimit", "X-RateLimit"))
        },
        "num_choices": len(answer.parse().choices),
    }


def streamed(client: openai.OpenAI, exchanges: Exchanges) -> dict[str, Any]:
    use_up(client)
    exchanges.of_last_call()
    chunks = list(client.chat.completions.create(model="tiny", stream=True, **QUESTION))
    return {"num_chunks": len(chunks), "exchanges": exchanges.of_last_call()}


def given_up(client: openai.OpenAI, exchanges: Exchanges, **options: Any) -> dict[str, Any]:
    """Of what is not worth another try, though there may be two."""
    exchanges.of_last_call()
    try:
        client.chat.completions.create(model="tiny", **{**QUESTION, **options})
    except openai.APIStatusError as exc:
        return {**told(exc), "exchanges": exchanges.of_last_call()}
    raise AssertionError("it was let in")


async def asynchronous(base_url: str, key: str) -> dict[str, Any]:
    """Two at once, each of which comes through."""
    exchanges = Exchanges()
    http = openai.DefaultAsyncHttpxClient(event_hooks={"response": [exchanges.note_async]})
    async with openai.AsyncOpenAI(
        base_url=base_url, api_key=key, max_retries=5, http_client=http
    ) as client:
        answers = await asyncio.gather(
            *(client.chat.completions.create(model="tiny", **QUESTION) for _ in range(2))
        )
    statuses = [one["status"] for one in exchanges.seen]
    return {"num_answers": len(answers), "num_refused": statuses.count(429)}


def main() -> None:
    base_url, requests_key, tokens_key, day_key = sys.argv[1:]

    def client_of(key: str) -> tuple[openai.OpenAI, Exchanges]:
        exchanges = Exchanges()
        http = openai.DefaultHttpxClient(event_hooks={"response": [exchanges.note]})
        return openai.OpenAI(base_url=base_url, api_key=key, http_client=http), exchanges

    day_client, day_exchanges = client_of(day_key)
    found = {
        "requests": waited_for(*client_of(requests_key)),
        "tokens": waited_for(*client_of(tokens_key)),
        "streamed": streamed(*client_of(requests_key)),
        # Right behind the one before: nothing is left.
        "asynchronous": asyncio.run(asynchronous(base_url, requests_key)),
        "never": given_up(day_client, day_exchanges, max_tokens=1500),
        "day": use_up(day_client),
        "day_again": given_up(day_client, day_exchanges),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
