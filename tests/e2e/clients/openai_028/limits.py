"""The openai SDK before its version 1 where limits are met: it retries nothing, its users do.

Arguments: the base URL; keys whose buckets of requests and of tokens a day are small.
"""

# mypy: ignore-errors
# its types are not those of the openai package that mypy finds

from __future__ import annotations

import json
import sys
import time

import openai

QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16}


def use_up(key: str) -> openai.error.OpenAIError:
    while True:
        try:
            openai.ChatCompletion.create(**QUESTION, api_key=key)
        except openai.error.OpenAIError as exc:
            return exc


def told(exc: openai.error.OpenAIError) -> dict[str, object]:
    return {
        "class": type(exc).__name__,
        "status": exc.http_status,
        "code": exc.json_body["error"]["code"],
        "retry_after": exc.headers["Retry-After"],
    }


def main() -> None:
    openai.api_base, requests_key, day_key = sys.argv[1:]
    refused = use_up(requests_key)
    time.sleep(float(refused.headers["Retry-After"]))
    again = openai.ChatCompletion.create(**QUESTION, api_key=requests_key)
    found = {
        "requests": told(refused),
        "num_choices": len(again.choices),
        "day": told(use_up(day_key)),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
