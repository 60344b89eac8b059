"""Guided decoding by llguidance: a grammar becomes a Guide that says which tokens may come next.

Compiling takes from a millisecond to seconds: never call `compile` from the step loop.
"""

from __future__ import annotations

from pathlib import Path

import llguidance
import numpy as np
from numpy.typing import NDArray

from triton_models.contract import GUIDE_TENSOR, GUIDE_TYPE_TENSOR
from triton_models.errors import EngineError, InvalidArgumentError
from triton_models.grammars import GUIDE_TYPES, GrammarError, grammar_of
from triton_models.request import Guide


class LlGuide:
    """One matcher's state."""

    def __init__(self, matcher: llguidance.LLMatcher, end_ids: list[int]) -> None:
        self._matcher = matcher
        self._end_ids = end_ids

    def fork(self) -> Guide:
        """See Guide."""
        return LlGuide(self._matcher.deep_copy(), self._end_ids)

    def allowed(self) -> NDArray[np.bool_]:
        """See Guide."""
        allowed: NDArray[np.bool_] = (
            np.frombuffer(self._matcher.compute_logit_bias(), np.uint8) != 0
        )
        if self._matcher.is_error():
            raise EngineError(f"grammar: {self._matcher.get_error()}")
        allowed[self._end_ids] = False  # the caller has its own end_id and asks may_end()
        return allowed

    def may_end(self) -> bool:
        """See Guide."""
        return bool(self._matcher.is_accepting())

    def accept(self, token_id: int) -> None:
        """See Guide."""
        self._matcher.consume_token(token_id)


class GuideCompiler:
    """Compiles grammars for one tokenizer. Thread-safe."""

    def __init__(self, tokenizer_file: Path, vocab_size: int, end_ids: list[int]) -> None:
        self._tokenizer = llguidance.LLTokenizer(
            str(tokenizer_file), n_vocab=vocab_size, eos_token=end_ids
        )

    def compile(self, guide_type: str, guide: str) -> Guide:
        """Raises InvalidArgumentError for an unknown type and for a bad grammar."""
        matcher = llguidance.LLMatcher(self._tokenizer, _grammar(guide_type, guide), log_level=0)
        if matcher.is_error():
            raise InvalidArgumentError(GUIDE_TENSOR, matcher.get_error())
        return LlGuide(matcher, list(self._tokenizer.eos_tokens))


def _grammar(guide_type: str, guide: str) -> str:
    if guide_type not in GUIDE_TYPES:
        known = ", ".join(sorted(GUIDE_TYPES))
        raise InvalidArgumentError(GUIDE_TYPE_TENSOR, f"{guide_type!r} is not one of {known}")
    try:
        return grammar_of(guide_type, guide)
    except GrammarError as exc:
        raise InvalidArgumentError(GUIDE_TENSOR, str(exc)) from exc
