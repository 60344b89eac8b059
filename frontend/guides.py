"""Refuses guides that no engine could follow, before one sees them."""

from __future__ import annotations

import asyncio
from functools import lru_cache

from frontend.errors import InvalidParameter
from frontend.types import Guide, LoadedModel
from triton_models.grammars import GrammarError, check_guide

GUIDE_TENSOR = "guided_decoding_guide"
MAX_GUIDE_CHARS = 2**18
MAX_REASON_CHARS = 300


async def check(guide: Guide, loaded: LoadedModel, *, param: str, text_param: str) -> None:
    """
    Args:
        param: the field that asks for the guide.
        text_param: the field that has its text: a schema's, say.

    Raises:
        InvalidParameter: the guide is invalid, or the engine follows none.
    """
    if GUIDE_TENSOR not in loaded.inputs:
        raise InvalidParameter(param, "unsupported", reason=f"no tensor {GUIDE_TENSOR}")
    if (length := len(guide.text)) > MAX_GUIDE_CHARS:
        raise InvalidParameter(text_param, "too_long", length=length, maximum=MAX_GUIDE_CHARS)
    # Compiling a large one takes 50 ms, and lets go of the interpreter lock.
    problem = await asyncio.to_thread(_problem, guide)
    if problem is not None:
        raise InvalidParameter(text_param, "invalid_guide", reason=problem)


@lru_cache(maxsize=128)  # of up to a MB each
def _problem(guide: Guide) -> str | None:
    """What is wrong with a guide; agents send the same ones again and again."""
    try:
        check_guide(guide.type, guide.text)
    except GrammarError as exc:
        return " ".join(str(exc).split())[:MAX_REASON_CHARS]
    return None
