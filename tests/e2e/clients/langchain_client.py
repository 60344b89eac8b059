"""LangChain's ChatOpenAI and OpenAI, with the names of their settings that API.md promises."""

from __future__ import annotations

import json
import sys

from langchain_openai import ChatOpenAI, OpenAI

QUESTION = "What is the capital of France?"


def completed() -> dict[str, object]:
    """By OpenAI, which sends bare texts, several in one request."""
    model = OpenAI(
        openai_api_base=sys.argv[1],
        openai_api_key="any-key",
        model_name="smollm2-135m-instruct",
        temperature=0,
        max_tokens=12,
    )
    prompts = ["The capital of France is", "One, two, three,"]
    result = model.generate(prompts)
    return {
        "texts": [generations[0].text for generations in result.generations],
        "usage": (result.llm_output or {})["token_usage"],
        "streamed": ["".join(model.stream(prompt)) for prompt in prompts],
    }


def main() -> None:
    model = ChatOpenAI(
        openai_api_base=sys.argv[1],
        openai_api_key="any-key",
        model_name="smollm2-135m-instruct",
        temperature=0,
        max_tokens=24,
    )
    plain = model.invoke(QUESTION)
    chunks = [chunk.content for chunk in model.stream(QUESTION)]
    found = {
        "plain": {
            "text": plain.content,
            "finish_reason": plain.response_metadata["finish_reason"],
            "usage": plain.response_metadata["token_usage"],
        },
        "stream": {"text": "".join(str(chunk) for chunk in chunks), "num_events": len(chunks)},
        "completed": completed(),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
