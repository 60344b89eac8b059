"""The openai SDK before its version 1, as much code still has it: module-level calls."""

# mypy: ignore-errors
# its types are not those of the openai package that mypy finds

from __future__ import annotations

import json
import sys

import openai

MODEL = "smollm2-135m-instruct"
MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


def completed() -> dict[str, object]:
    fields = {"model": MODEL, "prompt": "The capital of France is", "max_tokens": 12}
    plain = openai.Completion.create(**fields, temperature=0, logprobs=1, echo=True)
    chunks = openai.Completion.create(**fields, temperature=0, stream=True)
    return {
        "text": plain.choices[0].text,
        "first_log_prob": plain.choices[0].logprobs.token_logprobs[0],
        "streamed": "".join(chunk["choices"][0]["text"] for chunk in chunks),
    }


def main() -> None:
    openai.api_base = sys.argv[1]
    openai.api_key = "any-key"
    plain = openai.ChatCompletion.create(
        model=MODEL, messages=MESSAGES, temperature=0, max_tokens=24
    )
    texts, reason = [], None
    for chunk in openai.ChatCompletion.create(
        model=MODEL, messages=MESSAGES, temperature=0, max_tokens=24, stream=True
    ):
        choice = chunk["choices"][0]
        texts.append(choice["delta"].get("content", ""))
        reason = choice["finish_reason"]
    try:
        openai.ChatCompletion.create(model=MODEL, messages=[])
        error = None
    except openai.error.InvalidRequestError as exc:
        error = {"status": exc.http_status, "param": exc.param}
    found = {
        "version": openai.__version__,
        "plain": {
            "text": plain.choices[0].message.content,
            "finish_reason": plain.choices[0].finish_reason,
            "usage": plain.usage.to_dict(),
        },
        "stream": {"text": "".join(texts), "num_events": len(texts), "finish_reason": reason},
        "completed": completed(),
        "error": error,
        "models": [model.id for model in openai.Model.list().data],
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
