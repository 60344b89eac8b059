"""Logits to tokens: numpy only, one call a step.

Order: bias, penalties, bans (min_tokens, bad words, grammar), temperature, top-k, top-p, min-p.
Log-probs are of the raw logits. Penalties come before the temperature, as OpenAI defines them;
the repetition penalty counts prompt and output, presence and frequency the output alone.
Knows nothing about blocks, events or Triton.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triton_models.batching.log_probs import Logits, log_sum_exp, top_indices
from triton_models.batching.sequence import Sequence
from triton_models.request import SamplingParams

# probabilities, relative to the largest, at which to look for the tokens that top-k or top-p keep;
# sorting these few instead of the whole vocabulary gives the same result
_CUTS = (1e-2, 1e-4, 1e-7, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """The token chosen for one row, and what was asked about it."""

    token_id: int | None  # None: the grammar lets nothing follow
    log_prob: float = 0.0
    top_ids: NDArray[np.int32] | None = None
    top_log_probs: NDArray[np.float32] | None = None


def is_plain(sequence: Sequence) -> bool:
    """Whether the row's largest logit is all that its request needs."""
    sampling = sequence.state.request.sampling
    return (
        sampling.is_greedy
        and not sampling.return_log_probs
        and not sampling.num_top_log_probs
        and sampling.bias_token_ids is None
        and not sampling.bad_words
        and not sampling.has_penalties
        and sequence.guide is None
        and sequence.num_output_tokens >= sampling.min_tokens
    )


def greedy(logits: Logits) -> list[int]:
    """The likeliest token of each row of [rows, vocab]."""
    token_ids: list[int] = logits.argmax(axis=1).tolist()
    return token_ids


def sample(logits: Logits, sequence: Sequence) -> Sampled:
    """One row, [vocab], which is not changed."""
    sampling = sequence.state.request.sampling
    adjusted = _adjust(logits, sequence)
    if sampling.is_greedy:
        token_id = int(adjusted.argmax())
    else:
        token_id = _draw(adjusted, sampling, sequence.rng)
    if adjusted[token_id] == -np.inf:
        return Sampled(token_id=None)
    if not (sampling.return_log_probs or sampling.num_top_log_probs):
        return Sampled(token_id=token_id)
    norm = log_sum_exp(logits)
    log_prob = float(logits[token_id]) - norm
    if not sampling.num_top_log_probs:
        return Sampled(token_id=token_id, log_prob=log_prob)
    top_ids = top_indices(logits, sampling.num_top_log_probs)
    return Sampled(
        token_id=token_id,
        log_prob=log_prob,
        top_ids=top_ids.astype(np.int32),
        top_log_probs=(logits[top_ids].astype(np.float64) - norm).astype(np.float32),
    )


def count_token(sequence: Sequence, token_id: int, vocab_size: int) -> None:
    """Keeps the token counts that the penalties need."""
    if not sequence.state.request.sampling.has_penalties:
        return
    counts, seen = _counts(sequence, vocab_size)
    counts[token_id] += 1
    seen[token_id] = True


def _adjust(logits: Logits, sequence: Sequence) -> Logits:
    request = sequence.state.request
    sampling = request.sampling
    adjusted = logits.copy()
    if sampling.bias_token_ids is not None and sampling.bias_values is not None:
        adjusted[sampling.bias_token_ids] += sampling.bias_values
    if sampling.has_penalties:
        _penalize(adjusted, sequence)
    if request.end_id >= 0 and sequence.num_output_tokens < sampling.min_tokens:
        adjusted[request.end_id] = -np.inf
    for word in sampling.bad_words:
        if ends_with(sequence.token_ids, word[:-1]):
            adjusted[word[-1]] = -np.inf
    if sequence.guide is not None:
        _constrain(adjusted, sequence)
    return adjusted


def ends_with(token_ids: Seq[int], tail: Seq[int]) -> bool:
    """Whether `token_ids` ends with all of `tail` (an empty one always)."""
    return not tail or tuple(token_ids[-len(tail) :]) == tuple(tail)


def _counts(sequence: Sequence, vocab_size: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    if sequence.token_counts is None or sequence.seen is None:
        sequence.token_counts = np.zeros(vocab_size, np.int32)
        sequence.seen = np.zeros(vocab_size, np.bool_)
        sequence.seen[sequence.token_ids] = True
    return sequence.token_counts, sequence.seen


def _penalize(adjusted: Logits, sequence: Sequence) -> None:
    sampling = sequence.state.request.sampling
    counts, seen = _counts(sequence, adjusted.size)
    if sampling.repetition_penalty != 1:
        ids = np.flatnonzero(seen)
        values = adjusted[ids]
        penalty = np.float32(sampling.repetition_penalty)
        adjusted[ids] = np.where(values > 0, values / penalty, values * penalty)
    if sampling.presence_penalty or sampling.frequency_penalty:
        ids = np.flatnonzero(counts)
        adjusted[ids] -= np.float32(sampling.presence_penalty) + counts[ids] * np.float32(
            sampling.frequency_penalty
        )


def _constrain(adjusted: Logits, sequence: Sequence) -> None:
    """Leaves what the grammar allows. end_id is allowed where the text is complete, whatever token
    the tokenizer holds for its end; a min_tokens ban stays."""
    guide = sequence.guide
    assert guide is not None
    end_id = sequence.state.request.end_id
    allowed = guide.allowed()
    end_logit = adjusted[end_id] if end_id >= 0 and guide.may_end() else None
    adjusted[: allowed.size][~allowed[: adjusted.size]] = -np.inf
    adjusted[allowed.size :] = -np.inf
    if end_id >= 0:
        adjusted[end_id] = -np.inf if end_logit is None else end_logit


def _draw(adjusted: Logits, sampling: SamplingParams, rng: np.random.Generator) -> int:
    """One token by its probability, after temperature, top-k, top-p and min-p."""
    top = adjusted.max()
    if not np.isfinite(top):
        return int(adjusted.argmax())
    weights = np.exp((adjusted - top) * np.float32(1 / sampling.temperature))
    if sampling.top_k <= 0 and not 0 < sampling.top_p < 1:
        if sampling.min_p > 0:
            weights[weights < sampling.min_p] = 0
        return _pick(weights, rng)
    ids = _candidates(weights, sampling)
    kept = weights[ids].astype(np.float64)
    if sampling.min_p > 0:
        kept[kept < sampling.min_p] = 0
    return int(ids[_pick(kept, rng)])


def _candidates(weights: Logits, sampling: SamplingParams) -> NDArray[np.intp]:
    """The tokens that top-k and then top-p keep, likeliest first. The largest weight is 1."""
    for cut in _CUTS:
        ids = np.flatnonzero(weights >= cut) if cut else np.arange(weights.size)
        if sampling.top_k > 0:
            if ids.size < min(sampling.top_k, weights.size):
                continue
        elif weights[ids].sum(dtype=np.float64) < sampling.top_p * weights.sum(dtype=np.float64):
            continue
        break
    ids = ids[np.argsort(-weights[ids], kind="stable")]
    if sampling.top_k > 0:
        ids = ids[: sampling.top_k]
    if 0 < sampling.top_p < 1:
        mass = weights[ids].astype(np.float64)
        total = mass.sum() if sampling.top_k > 0 else weights.sum(dtype=np.float64)
        before = np.cumsum(mass) - mass
        ids = ids[before < sampling.top_p * total]
    return ids


def _pick(weights: NDArray[np.float32] | NDArray[np.float64], rng: np.random.Generator) -> int:
    """An index by weight; exactly one random number, so a sequence's stream never shifts."""
    cumulated = np.cumsum(weights, dtype=np.float64)
    index = int(np.searchsorted(cumulated, rng.random() * cumulated[-1], side="right"))
    # rounding may reach the very end, where the weight can be 0
    return index if index < weights.size and weights[index] > 0 else int(weights.argmax())
