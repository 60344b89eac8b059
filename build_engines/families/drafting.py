"""How an engine guesses tokens ahead: a spec's [speculative] table with every choice made."""

from __future__ import annotations

from dataclasses import dataclass

from build_engines.errors import ChoiceError
from build_engines.variants import Speculative

DEFAULT_LOOKAHEAD = (7, 7, 7)  # examples/lookahead/README.md
DEFAULT_DRAFT_LEN = 10
MAX_TREE_LEN = 63
# The tree of guesses that upstream's READMEs of Medusa and EAGLE use (mc_sim_7b_63).
_TREE_PATHS = (
    "0 0.0 1 0.1 2 0.0.0 1.0 0.2 3 0.3 4 0.4 2.0 0.5 0.0.1 5 0.6 6 0.7 0.1.0 1.1 7 0.8 0.0.2 "
    "3.0 0.9 8 9 1.0.0 0.2.0 1.2 0.0.3 4.0 2.1 0.0.4 0.0.5 0.0.0.0 0.1.1 0.0.6 0.3.0 5.0 1.3 "
    "0.0.7 0.0.8 0.0.9 6.0 0.4.0 1.4 7.0 0.1.2 2.0.0 3.1 2.2 8.0 0.5.0 1.5 1.0.1 0.2.1 9.0 "
    "0.6.0 0.0.0.1 1.6 0.7.0"
)
DEFAULT_TREE = tuple(tuple(map(int, path.split("."))) for path in _TREE_PATHS.split())
_BUILD_MODES = {
    "draft_target": "draft_tokens_external",
    "lookahead": "lookahead_decoding",
    "medusa": "medusa",
    "eagle": "eagle",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafting:
    """How tokens are guessed ahead, with the mode's defaults filled in."""

    mode: str  # draft_target, lookahead, medusa, eagle
    max_draft_len: int
    draft_model: str | None = None
    num_heads: int = 0  # Medusa's
    tree: tuple[tuple[int, ...], ...] = ()  # of Medusa and EAGLE
    lookahead: tuple[int, int, int] | None = None  # window, n-gram, verification set

    @property
    def build_mode(self) -> str:
        """Value of trtllm-build's --speculative_decoding_mode."""
        return _BUILD_MODES[self.mode]

    @property
    def has_own_script(self) -> bool:
        """Whether the draft's weights become part of the engine."""
        return self.mode in ("medusa", "eagle")

    @property
    def depth(self) -> int:
        """Tokens of the longest guess."""
        return max(map(len, self.tree), default=0)


def make_drafting(given: Speculative) -> Drafting:
    if given.mode == "lookahead":
        return _lookahead(given)
    if given.mode == "draft_target":
        return Drafting(
            mode=given.mode,
            max_draft_len=given.max_draft_len or DEFAULT_DRAFT_LEN,
            draft_model=given.draft_model,
        )
    tree = tuple(map(tuple, given.choices)) if given.choices else DEFAULT_TREE
    return Drafting(
        mode=given.mode,
        max_draft_len=given.max_draft_len or max(len(tree), MAX_TREE_LEN),
        draft_model=given.draft_model,
        num_heads=given.num_heads or max(map(len, tree)),
        tree=tree,
    )


def _lookahead(given: Speculative) -> Drafting:
    window, ngram, verified = (
        chosen or default
        for chosen, default in zip(
            (given.window_size, given.ngram_size, given.verification_set_size),
            DEFAULT_LOOKAHEAD,
            strict=True,
        )
    )
    length = lookahead_draft_len(window, ngram, verified)
    if given.max_draft_len not in (None, length):
        raise ChoiceError(
            f"max_draft_len is {given.max_draft_len}, but lookahead with ({window}, {ngram}, "
            f"{verified}) needs exactly {length}: leave it out"
        )
    return Drafting(mode="lookahead", max_draft_len=length, lookahead=(window, ngram, verified))


def lookahead_draft_len(window: int, ngram: int, verified: int) -> int:
    """Draft tokens of a step (examples/lookahead/README.md; arXiv:2402.02057)."""
    return (0 if ngram == 1 else ngram - 2) + (window - 1 + verified) * (ngram - 1)
