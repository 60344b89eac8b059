"""Keeps generated requests answerable: they ask for models that are there, and for few tokens.

What is wrong in a request stays wrong: only values that the description allows are changed.
"""

from __future__ import annotations

import json
import os
from typing import Any

import schemathesis

MODELS = json.loads(os.environ["FUZZ_MODELS"])  # path -> the model to ask for; "": all other paths
MAX_TOKENS = int(os.environ["FUZZ_MAX_TOKENS"])
MAX_SEQUENCES = 4
MAX_INT32 = 2**31 - 1
TOKEN_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
SEQUENCES = ("n", "best_of")
GENERATING = {
    "/api/v1/batch/generate": "max_tokens",  # of each of its requests
    "/api/v1/generate": "max_tokens",
    "/api/v1/generate/stream": "max_tokens",
    "/v1/chat/completions": "max_tokens",
    "/v1/completions": "max_tokens",
    "/v1/messages": "max_tokens",
    "/v1/responses": "max_output_tokens",
}


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    is_batch = isinstance(case.body, dict) and isinstance(case.body.get("requests"), list)
    for body in case.body["requests"] if is_batch else [case.body]:
        if isinstance(body, dict):
            _bound(body, case.path)


def _bound(body: dict[str, Any], path: str) -> None:
    model = MODELS.get(path, MODELS[""])
    if isinstance(body.get("model"), str) or (model != MODELS[""] and body.get("model") is None):
        body["model"] = model
    for names, maximum, largest in (
        (TOKEN_LIMITS, MAX_TOKENS, MAX_INT32),
        (SEQUENCES, MAX_SEQUENCES, 128),
    ):
        for name in names:
            value = body.get(name)
            if isinstance(value, int) and maximum < value <= largest:
                body[name] = maximum
    if path in GENERATING and body.get(GENERATING[path]) is None:
        body[GENERATING[path]] = MAX_TOKENS
