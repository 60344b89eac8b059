"""What the guides of the tensor contract mean, as grammars of llguidance.

The CPU engine compiles them; the frontend checks them before an engine sees them. TensorRT-LLM
reads the guides by itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import llguidance
from llguidance.gbnf_to_lark import any_to_lark

from triton_models.closed_schema import close_objects

_GRAMMARS: dict[str, Callable[[str], str]] = {
    "json": lambda guide: llguidance.LLMatcher.grammar_from_json_schema({"type": "object"}),
    "json_schema": lambda guide: llguidance.LLMatcher.grammar_from_json_schema(
        close_objects(json.loads(guide))
    ),
    "regex": llguidance.LLMatcher.grammar_from_regex,
    "ebnf_grammar": lambda guide: llguidance.LLMatcher.grammar_from_lark(any_to_lark(guide)),
}
GUIDE_TYPES = frozenset(_GRAMMARS)


class GrammarError(ValueError):
    """The guide cannot be followed; the message says why."""


def grammar_of(guide_type: str, guide: str) -> str:
    """The grammar of a guide; whether it makes sense is seen when it is compiled.

    Raises:
        GrammarError: the guide cannot be read.
        KeyError: the type is none of GUIDE_TYPES.
    """
    make = _GRAMMARS[guide_type]
    try:
        return make(guide)
    except Exception as exc:  # the converter of grammars raises nothing more special
        raise GrammarError(str(exc)) from exc


def check_guide(guide_type: str, guide: str) -> None:
    """Compile a guide without a model's vocabulary. Takes 1 ms, 50 ms for a large one.

    Raises:
        GrammarError: it is invalid, or asks for what cannot be enforced.
    """
    grammar = grammar_of(guide_type, guide)
    is_error, messages = llguidance.LLMatcher.validate_grammar_with_warnings(grammar)
    if is_error:
        raise GrammarError(messages[0])
