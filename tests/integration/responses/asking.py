"""How tests of /v1/responses ask, and what they read of the answers."""

from __future__ import annotations

import json
from typing import Any

import openai

from tests.fakes.engine import FakeEngine, Script, one_token_a_step
from tests.fakes.server import ServerThread, wait_until
from tests.fakes.tokenizers import byte_level_tokenizer

TOKENIZER = byte_level_tokenizer()
HELLO = Script(steps=one_token_a_step(TOKENIZER.encode("你好").ids, every_s=0.002))
SLOW = Script(steps=one_token_a_step(TOKENIZER.encode("slowly").ids, every_s=0.2))


def sdk_of(server: ServerThread) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="any-key", max_retries=0)


def prompt_of(engine: FakeEngine, index: int = -1) -> str:
    ids = engine.streams[index].request.prompt_token_ids
    text: str = TOKENIZER.decode(ids, skip_special_tokens=False)
    return text


def turns(*texts: str) -> str:
    """The prompt of texts of the user and the assistant in turn."""
    roles = ("user", "assistant")
    said = "".join(
        f"<|im_start|>{roles[i % 2]}\n{text}<|im_end|>\n" for i, text in enumerate(texts)
    )
    return f"{said}<|im_start|>assistant\n"


def parse_named_events(body: bytes) -> list[dict[str, Any]]:
    found = []
    for block in body.decode().split("\n\n"):
        if block and not block.startswith(":"):
            name, _, data = block.partition("\n")
            event = json.loads(data.removeprefix("data: "))
            assert name == f"event: {event['type']}"
            found.append(event)
    return found


def wait_for_end(sdk: openai.OpenAI, response_id: str) -> Any:
    wait_until(lambda: sdk.responses.retrieve(response_id).status not in ("queued", "in_progress"))
    return sdk.responses.retrieve(response_id)
