"""The model: logits that depend on the last tokens and the adapter, and the two real samplers.

`fake_llm.json` in the checkpoint tells what else happens; see Script.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llguidance
import numpy as np
from numpy.typing import NDArray
from tensorrt_llm.executor import Logprob
from tensorrt_llm.sampling_params import GuidedDecodingParams, SamplingParams

CONTEXT = 4  # tokens that the next one depends on
Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Fields of fake_llm.json."""

    step_s: float = 0.001
    tokens_per_step: int = 1
    start_together: int = 1  # no token is made before so many requests have come
    fail_on: int = -1  # a prompt that begins with this token: RequestError after two tokens
    die_on: int = -1  # likewise: the LLM dies after two tokens
    load_error: str = ""

    @classmethod
    def read(cls, checkpoint: Path) -> Script:
        path = checkpoint / "fake_llm.json"
        return cls(**json.loads(path.read_text())) if path.is_file() else cls()


class NoiseModel:
    """Deterministic for a context and an adapter."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def logits(self, token_ids: list[int], lora_id: int) -> Logits:
        key = np.array([lora_id, *token_ids[-CONTEXT:]], np.uint64).tobytes()
        seed = int.from_bytes(hashlib.sha256(key).digest()[:8], "little")
        noise = np.random.default_rng(seed).normal(scale=3.0, size=self.vocab_size)
        return noise.astype(np.float32)


def log_softmax(logits: Logits) -> Logits:
    shifted = logits - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()), np.float32)


def log_prob_table(logits: Logits, token_id: int, k: int) -> dict[int, Logprob]:
    """The k likeliest tokens and the chosen one."""
    log_probs = log_softmax(logits)
    order = np.argsort(-log_probs, kind="stable")
    table = {int(i): Logprob(float(log_probs[i]), rank + 1) for rank, i in enumerate(order[:k])}
    if token_id not in table:
        rank = int(np.flatnonzero(order == token_id)[0]) + 1
        table[token_id] = Logprob(float(log_probs[token_id]), rank)
    return table


class Matcher:
    """Guided decoding as the backend `llguidance` does it."""

    def __init__(self, tokenizer: Any, guide: GuidedDecodingParams) -> None:
        self._matcher = llguidance.LLMatcher(tokenizer, _grammar(guide), log_level=0)
        if self._matcher.is_error():
            raise ValueError(f"grammar: {self._matcher.get_error()}")

    def mask(self, logits: Logits) -> None:
        allowed = np.frombuffer(self._matcher.compute_logit_bias(), np.uint8) != 0
        logits[~allowed[: len(logits)]] = -np.inf

    def accept(self, token_id: int) -> None:
        self._matcher.consume_token(token_id)


def _grammar(guide: GuidedDecodingParams) -> str:
    matcher = llguidance.LLMatcher
    if guide.json_object:
        return str(matcher.grammar_from_json_schema({"type": "object"}))
    if guide.json is not None:
        schema = json.loads(guide.json) if isinstance(guide.json, str) else guide.json
        return str(matcher.grammar_from_json_schema(schema))
    if guide.regex is not None:
        return str(matcher.grammar_from_regex(guide.regex))
    return str(matcher.grammar_from_lark(guide.grammar))


class Sampler:
    """What each of the two samplers does, and leaves undone without a word."""

    def __init__(self, kind: str) -> None:
        self._is_torch = kind != "TRTLLMSampler"
        self._random = np.random.default_rng(42)  # the TorchSampler has one, for all requests

    def generator(self, params: SamplingParams) -> np.random.Generator:
        return self._random if self._is_torch else np.random.default_rng(params.seed or 0)

    def num_log_probs(self, params: SamplingParams) -> int:
        return (params.logprobs or 0) if self._is_torch else min(params.logprobs or 0, 1)

    def choose(
        self, logits: Logits, params: SamplingParams, output: list[int],
        matcher: Matcher | None, random: np.random.Generator,
    ) -> int:  # fmt: skip
        logits = logits.copy()
        if params.embedding_bias is not None:
            logits += params.embedding_bias.numpy()
        if not self._is_torch:
            self._penalize(logits, params, output)
        if params.min_tokens and len(output) < params.min_tokens and params.end_id is not None:
            logits[params.end_id] = -np.inf
        if matcher is not None:
            matcher.mask(logits)
        if params._greedy_decoding:
            return int(logits.argmax())
        return self._draw(logits, params, random)

    def _penalize(self, logits: Logits, params: SamplingParams, output: list[int]) -> None:
        for token_id in set(output):
            logits[token_id] -= params.presence_penalty or 0
            logits[token_id] -= (params.frequency_penalty or 0) * output.count(token_id)
        logits[params.bad_token_ids or []] = -np.inf

    def _draw(self, logits: Logits, params: SamplingParams, random: np.random.Generator) -> int:
        scaled = logits / (params.temperature or 1.0)
        if params.top_k:
            scaled[scaled < np.sort(scaled)[-params.top_k]] = -np.inf
        probabilities = np.exp(log_softmax(scaled)).astype(np.float64)
        order = np.argsort(-probabilities)
        kept = np.cumsum(probabilities[order]) - probabilities[order] < (params.top_p or 1.0)
        probabilities[order[~kept]] = 0
        if params.min_p and not self._is_torch:
            probabilities[probabilities < params.min_p * probabilities.max()] = 0
        return int(random.choice(len(logits), p=probabilities / probabilities.sum()))
