"""Requests of the kinds that the tests send, and reading what is streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx

CHAT, GENERATE = "/v1/chat/completions", "/api/v1/generate"
STREAM = "/api/v1/generate/stream"


def chat_body(text: str, **fields: Any) -> dict[str, Any]:
    """Greedy unless told otherwise."""
    messages = [{"role": "user", "content": text}]
    return {"model": "default", "messages": messages, "temperature": 0, **fields}


def long_body(**fields: Any) -> dict[str, Any]:
    """A request that would take minutes."""
    return chat_body("Tell me a story.", max_tokens=6000, ignore_eos=True, **fields)


def events(answer: httpx.Response) -> Iterator[str]:
    """The data of each event; keep-alive comments are read over. Fails where it is no UTF-8."""
    pending = b""
    for piece in answer.iter_bytes():
        *blocks, pending = (pending + piece).split(b"\n\n")
        for block in blocks:
            text = block.decode()
            if text.startswith("data: "):
                yield text.removeprefix("data: ")
    assert not pending, "the stream ends with a whole event"


def stream_chat(http: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    """A streamed chat completion as a whole: text, pieces, finish_reason, usage."""
    body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    with http.stream("POST", CHAT, json=body) as answer:
        assert answer.status_code == 200, answer.read()
        *chunks, done = events(answer)
    assert done == "[DONE]"
    decoded = [json.loads(chunk) for chunk in chunks]
    choices = [choice for chunk in decoded for choice in chunk["choices"]]
    pieces = [choice["delta"].get("content", "") for choice in choices]
    reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    assert len(reasons) == 1
    return {
        "text": "".join(pieces),
        "pieces": pieces,
        "finish_reason": reasons[0],
        "usage": decoded[-1]["usage"],
    }


def plain_chat(http: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    """The same of a plain answer."""
    answer = http.post(CHAT, json=body)
    assert answer.status_code == 200, answer.text
    content = answer.json()
    choice = content["choices"][0]
    return {
        "text": choice["message"]["content"],
        "finish_reason": choice["finish_reason"],
        "usage": content["usage"],
    }


def check_answers(plain: dict[str, Any], stream: dict[str, Any]) -> None:
    """Of outside clients, to the same greedy request."""
    assert plain["text"]
    assert stream["text"] == plain["text"]
    assert stream["num_events"] > 2
    usage = plain["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def token_counts(usage: dict[str, Any]) -> dict[str, int]:
    """Without how many came from the prefix cache: that differs from request to request."""
    return {name: count for name, count in usage.items() if isinstance(count, int)}
