"""Which surface a path is of: it decides the shape of errors and what clients look for in heads."""

from __future__ import annotations

from enum import Enum

# Where other servers have them, too.
TOKENIZER_PATHS = frozenset({"/tokenize", "/detokenize", "/tokenizer_info"})


class Surface(Enum):
    """The value is its name in the description."""

    OPENAI = "OpenAI surface"
    ANTHROPIC = "Anthropic surface"
    NATIVE = "Native surface"


def surface_of(path: str) -> Surface:
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return Surface.ANTHROPIC
    if path.startswith("/v1/") or path in TOKENIZER_PATHS:
        return Surface.OPENAI
    return Surface.NATIVE
