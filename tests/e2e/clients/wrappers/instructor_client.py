"""instructor: structured extraction in each of the modes that the OpenAI API has."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Literal

import instructor
import openai
from instructor import Mode
from pydantic import BaseModel, Field

MODEL = "smollm2-135m-instruct"
TEXT = "Ada Lovelace was born in London and lived for 36 years."
MODES = (Mode.TOOLS, Mode.TOOLS_STRICT, Mode.JSON_SCHEMA)


class Person(BaseModel):
    """Somebody that a text tells of."""

    city: Literal["London", "Paris"]
    age: int = Field(ge=0, le=150)


def ask(**options: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"Who is this? {TEXT}"}]
    return {
        "model": MODEL,
        "messages": messages,
        "response_model": Person,
        "temperature": 0,
        "max_tokens": 64,
        "max_retries": 1,
        **options,
    }


def extract(client: openai.OpenAI, mode: Mode) -> dict[str, Any]:
    person, answer = instructor.from_openai(client, mode).create_with_completion(**ask())
    return {"type": type(person).__name__, "finish_reason": answer.choices[0].finish_reason}


def extract_in_pieces(client: openai.OpenAI, mode: Mode) -> dict[str, Any]:
    *_, last = instructor.from_openai(client, mode).create_partial(**ask())
    return Person.model_validate(last.model_dump()).model_dump()


async def extract_asynchronously(base_url: str) -> str:
    async with openai.AsyncOpenAI(base_url=base_url, api_key="any-key") as client:
        person = await instructor.from_openai(client, Mode.JSON_SCHEMA).create(**ask())
        return type(person).__name__


def main() -> None:
    base_url = sys.argv[1]
    client = openai.OpenAI(base_url=base_url, api_key="any-key", max_retries=0)
    found = {
        "whole": {mode.value: extract(client, mode) for mode in MODES},
        "pieces": [extract_in_pieces(client, mode) for mode in (Mode.TOOLS, Mode.JSON_SCHEMA)],
        "asynchronous": asyncio.run(extract_asynchronously(base_url)),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
