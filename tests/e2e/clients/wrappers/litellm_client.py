"""litellm as a client: its `openai/` provider, pointed at us."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import litellm

MODEL = "smollm2-135m-instruct"
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


class Asker:
    """Where we are, and the question's settings."""

    def __init__(self, base_url: str) -> None:
        self._place = {"api_base": base_url, "api_key": "any-key", "num_retries": 0}

    def settings(self, text: str, model: str = MODEL, **options: Any) -> dict[str, Any]:
        return {
            **self._place,
            "model": f"openai/{model}",
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": 48,
            **options,
        }

    def embed(self, texts: list[str], model: str) -> list[int]:
        found = litellm.embedding(model=f"openai/{model}", input=texts, **self._place)
        return [len(item["embedding"]) for item in found.data]


def answers(asker: Asker) -> dict[str, Any]:
    settings = asker.settings("What is the capital of France?")
    plain = litellm.completion(**settings)
    chunks = list(litellm.completion(**settings, stream=True))
    rebuilt = litellm.stream_chunk_builder(chunks)
    later = asyncio.run(litellm.acompletion(**settings))
    return {
        "plain": {
            "text": plain.choices[0].message.content,
            "usage": plain.usage.model_dump(exclude_none=True),
        },
        "stream": {
            "text": rebuilt.choices[0].message.content,
            "num_events": len(chunks),
            "finish_reason": rebuilt.choices[0].finish_reason,
        },
        "async_text": later.choices[0].message.content,
    }


def agent(asker: Asker, model: str) -> dict[str, Any]:
    """A call; its result; the answer to that."""
    settings = asker.settings("What is the weather in Paris?", model, tools=[TOOL])
    called = litellm.completion(**settings).choices[0]
    (call,) = called.message.tool_calls
    settings["messages"] += [
        called.message,
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    answer = litellm.completion(**settings).choices[0]
    return {
        "name": call.function.name,
        "arguments": json.loads(call.function.arguments),
        "finish_reasons": [called.finish_reason, answer.finish_reason],
        "text": answer.message.content,
    }


def thoughts(asker: Asker, model: str) -> list[list[str]]:
    settings = asker.settings("What is the capital of France?", model)
    plain = litellm.completion(**settings)
    streamed = litellm.stream_chunk_builder(list(litellm.completion(**settings, stream=True)))
    messages = [answer.choices[0].message for answer in (plain, streamed)]
    return [[message.reasoning_content, message.content] for message in messages]


def refused(asker: Asker) -> dict[str, str]:
    found = {}
    for name, options in {"bad": {"top_p": 2}, "unknown": {"model": "openai/nobody"}}.items():
        try:
            litellm.completion(**{**asker.settings("Hello"), **options})
        except (litellm.BadRequestError, litellm.NotFoundError) as exc:
            found[name] = type(exc).__name__
    return found


def main() -> None:
    base_url, scripted_model, thinking_model, embedding_model = sys.argv[1:]
    litellm.suppress_debug_info = True  # it would write to stdout
    asker = Asker(base_url)
    found = {
        **answers(asker),
        "agent": agent(asker, scripted_model),
        "thoughts": thoughts(asker, thinking_model),
        "embedding_sizes": asker.embed(["one", "another"], embedding_model),
        "refused": refused(asker),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
