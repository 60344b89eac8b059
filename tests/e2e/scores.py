"""Log-probs found another way than by scoring a prompt: each token is generated."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from tests.e2e.stack import MODEL


class Scorer:
    """Asks a running stack for one token after the other."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def tokenize(self, text: str) -> list[int]:
        body = {"model": MODEL, "prompt": text, "add_special_tokens": False}
        token_ids: list[int] = self._http.post("/tokenize", json=body).json()["tokens"]
        return token_ids

    def log_prob(self, before: Sequence[int], token_id: int) -> float:
        """Of the token behind the others: a bias forces it, and log-probs are told without it."""
        body = {
            "model": MODEL,
            "prompt": list(before),
            "logit_bias": {str(token_id): 100},
            "temperature": 0,
            "max_tokens": 1,
            "logprobs": 0,
            "return_token_ids": True,
        }
        (choice,) = self._http.post("/v1/completions", json=body).json()["choices"]
        assert choice["token_ids"] == [token_id]
        (log_prob,) = choice["logprobs"]["token_logprobs"]
        return float(log_prob)

    def log_likelihood(self, context: str, continuation: str) -> float:
        token_ids, num_before = self.tokenize(context + continuation), len(self.tokenize(context))
        return sum(
            self.log_prob(token_ids[:i], token_ids[i]) for i in range(num_before, len(token_ids))
        )
