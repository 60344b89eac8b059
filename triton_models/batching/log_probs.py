"""Logits to log-probs, of single rows and of a prompt that is computed chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np
from numpy.typing import NDArray

from triton_models.request import PromptLogProbs

Logits = NDArray[np.float32]


def log_sum_exp(logits: Logits) -> float:
    """What a row's logits are to be lessened by to be log-probs."""
    top = logits.max()
    return float(top) + float(np.log(np.exp(logits - top).sum(dtype=np.float64)))


def top_indices(values: Logits, k: int) -> NDArray[np.intp]:
    """The k largest, largest first; equal ones by index."""
    k = min(k, values.size)
    found: NDArray[np.intp] = np.arange(0)
    top = values.max()
    for width in (2.0, 5.0, 12.0, 30.0, np.inf):  # sort few: the narrowest that has enough
        found = np.flatnonzero(values >= top - np.float32(width))
        if found.size >= k:
            break
    order: NDArray[np.intp] = np.argsort(-values[found], kind="stable")[:k]
    return np.take(found, order)


class PromptLogProbsCollector:
    """The log-probs of a prompt's own tokens.

    `values` are right when it is complete. Preemption loses nothing of what was collected.
    """

    def __init__(self, prompt_token_ids: Seq[int], num_top: int) -> None:
        num_tokens = len(prompt_token_ids)
        self.values = PromptLogProbs(
            log_probs=np.zeros(num_tokens, np.float32),
            top_ids=np.zeros((num_tokens - 1, num_top), np.int32),
            top_log_probs=np.zeros((num_tokens - 1, num_top), np.float32),
        )
        self._token_ids = prompt_token_ids
        self._num_top = num_top
        self._num_known = 1  # nothing predicts the first token

    @property
    def is_complete(self) -> bool:
        """Whether the values of all tokens are known."""
        return self._num_known == len(self._token_ids)

    def num_rows(self, end: int) -> int:
        """How many rows of logits it wants of the prompt's tokens before `end`: the last so many,
        less the prompt's last token, which predicts none of the prompt's own."""
        return max(0, min(end, len(self._token_ids) - 1) - (self._num_known - 1))

    def add(self, logits: NDArray[np.float32]) -> None:
        """Takes the next rows, [rows, vocab]; `num_rows` said how many."""
        for row in logits:
            self._add_row(row)

    def _add_row(self, logits: Logits) -> None:
        index = self._num_known
        norm = log_sum_exp(logits)
        self.values.log_probs[index] = float(logits[self._token_ids[index]]) - norm
        if self._num_top:
            top_ids = top_indices(logits, self._num_top)
            self.values.top_ids[index - 1] = top_ids
            self.values.top_log_probs[index - 1] = logits[top_ids].astype(np.float64) - norm
        self._num_known += 1
