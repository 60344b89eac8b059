"""Steps all requests together in one thread: noise as logits, and what becomes of it.

Source for what comes back when: model_instance_state.cc:1040-1400.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import llguidance
import numpy as np
from numpy.typing import NDArray

from tests.fakes.trtllm_backend.config import BackendConfig
from tests.fakes.trtllm_backend.requests import EnqueueError, Lora, Request, Words

STEP_S = 0.001
CONTEXT = 4  # tokens that the next one depends on
BLOCK = 32

Outputs = dict[str, NDArray[Any]]
Send = Callable[[Outputs | str, bool], None]  # tensors or an error; whether it is the last


@dataclass
class Sequence:
    index: int
    random: np.random.Generator
    matcher: llguidance.LLMatcher | None
    output: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    num_sent: int = 0
    has_ended: bool = False


@dataclass
class Running:
    request: Request
    send: Send
    max_new_tokens: int
    adapter: int  # of the logits; 0: none
    drafts: list[int]
    sequences: list[Sequence]
    num_accepted: int = 0
    is_cancelled: bool = False
    arrival_ns: int = field(default_factory=time.monotonic_ns)
    first_token_ns: int = 0


class LoraCache:
    """Adapters by task id; the least recently used one goes when their weights are too many."""

    def __init__(self, max_bytes: int, max_rank: int) -> None:
        self._max_bytes, self._max_rank = max_bytes, max_rank
        self._adapters: OrderedDict[int, tuple[int, int]] = OrderedDict()  # id -> seed, bytes

    def use(self, lora: Lora) -> int:
        """What the logits depend on. Raises EnqueueError."""
        if not self._max_rank:
            raise EnqueueError("LoRA is not enabled: the engine was built without lora_plugin")
        if lora.weights is not None and lora.config is not None:
            self._put(lora.task_id, lora.weights, lora.config)
        if lora.task_id not in self._adapters:
            raise EnqueueError(
                f"LoRA task {lora.task_id} not found in cache. "
                "Please send LoRA weights with request"
            )
        self._adapters.move_to_end(lora.task_id)
        return self._adapters[lora.task_id][0]

    def _put(self, task_id: int, weights: NDArray[np.float16], config: NDArray[np.int32]) -> None:
        if int(config[:, 2].max()) > self._max_rank:
            raise EnqueueError(f"LoRA rank is above max_lora_rank {self._max_rank}")
        digest = hashlib.sha256(weights.tobytes() + config.tobytes()).digest()
        self._adapters[task_id] = (int.from_bytes(digest[:7], "little"), weights.nbytes)
        while sum(size for _, size in self._adapters.values()) > self._max_bytes:
            self._adapters.popitem(last=False)


class Executor:
    def __init__(self, config: BackendConfig) -> None:
        self._config = config
        self._lora = LoraCache(config.lora_host_bytes, config.engine.max_lora_rank)
        self._tokenizer = _tokenizer(config)
        self._ids = count(1)
        self._running: dict[int, Running] = {}
        self._wake = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def enqueue(self, request: Request, send: Send) -> int:
        """Returns the executor's own id of the request. Raises EnqueueError."""
        with self._wake:
            limit = self._config.max_queue_size
            num_waiting = max(len(self._running) - self._config.engine.max_batch_size, 0)
            if limit and num_waiting + request.num_sequences > limit:
                raise EnqueueError(
                    f"Maximum queue size of {limit} has been reached, please try again later"
                )
            request_id = next(self._ids)
            try:
                running = self._start(request, send)
            except EnqueueError as exc:
                raise EnqueueError(
                    f"Executor failed process requestId {request_id} due to the following "
                    f"error: {exc}"
                ) from exc
            self._running[request_id] = running
            self._wake.notify()
        return request_id

    def cancel(self, request_id: int) -> None:
        with self._wake:
            if request_id in self._running:
                self._running[request_id].is_cancelled = True

    def close(self) -> None:
        with self._wake:
            self._is_closing = True
            self._wake.notify()
        self._thread.join()

    def _start(self, request: Request, send: Send) -> Running:
        engine = self._config.engine
        length = len(request.prompt)
        if length > engine.max_input_len:
            raise EnqueueError(
                f"Prompt length ({length}) exceeds maximum input length ({engine.max_input_len}). "
                "Set log level to info and check TRTGptModel logs for how maximum input length is "
                "set"
            )
        if request.bias is not None and request.bias.size < engine.vocab_size:
            raise EnqueueError("embedding bias must be of the size of the vocabulary")
        adapter = 0 if request.lora is None else self._lora.use(request.lora)
        sequences = [
            Sequence(index, np.random.default_rng((request.seed, index)), self._matcher(request))
            for index in range(request.num_sequences)
        ]
        drafts = self._drafts(request)
        # more than there is room for is cut without a word
        room = engine.max_seq_len - length - (len(drafts) or engine.max_draft_len)
        max_new_tokens = min(request.max_new_tokens, room)
        return Running(request, send, max_new_tokens, adapter, drafts, sequences)

    def _drafts(self, request: Request) -> list[int]:
        """llmRequest.cpp, validate: too many are refused, those that do not fit dropped."""
        engine = self._config.engine
        if len(request.drafts) > engine.max_draft_len:
            raise EnqueueError(
                f"Draft tokens length ({len(request.drafts)}) exceeds maximum draft tokens length "
                f"({engine.max_draft_len})."
            )
        if request.drafts and not engine.takes_drafts:
            raise EnqueueError("the stand-in's engine makes its guesses itself")
        return request.drafts[: engine.max_input_len - len(request.prompt)]

    def _matcher(self, request: Request) -> llguidance.LLMatcher | None:
        if request.guide is None:
            return None
        if self._tokenizer is None:
            raise EnqueueError("Guided decoding is not enabled")
        matcher = llguidance.LLMatcher(self._tokenizer, _grammar(*request.guide), log_level=0)
        if matcher.is_error():
            raise EnqueueError(f"invalid guide: {matcher.get_error()}")
        return matcher

    # ---- the executor's thread

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._running and not self._is_closing:
                    self._wake.wait()
                if self._is_closing:
                    return
            self._step_all()
            time.sleep(STEP_S)

    def _step_all(self) -> None:
        """A method of its own: what a waiting thread still names keeps the model loaded."""
        with self._wake:
            batch = list(self._running.items())[: self._config.engine.max_batch_size]
        for request_id, running in batch:
            self._step(request_id, running)

    def _step(self, request_id: int, running: Running) -> None:
        changed = [one for one in running.sequences if not one.has_ended]
        for sequence in changed:
            if running.is_cancelled:
                sequence.has_ended = True
            elif running.drafts:
                self._check_drafts(running, sequence)
            else:
                self._advance(running, sequence)
        is_final = all(one.has_ended for one in running.sequences)
        if is_final:
            with self._wake:
                del self._running[request_id]
        if not running.request.streaming:
            changed = running.sequences if is_final else []
        for sequence in changed:
            outputs = _outputs(running, sequence)
            running.send(outputs, is_final and sequence is changed[-1])

    def _check_drafts(self, running: Running, sequence: Sequence) -> None:
        """All in one step, after which the request is over: updateRequests of
        trtGptModelInflightBatching.cpp ("if it is speculative decoding target model").

        A guess is accepted if the engine would have chosen it (externalDraftTokensLayer.cpp).
        """
        for draft in [*running.drafts, None]:
            self._advance(running, sequence)
            if sequence.has_ended or sequence.output[-1] != draft:
                break
            running.num_accepted += 1
        sequence.has_ended = True

    def _advance(self, running: Running, sequence: Sequence) -> None:
        request = running.request
        token_id, log_prob = self._choose(running, sequence)
        running.first_token_ns = running.first_token_ns or time.monotonic_ns()
        if token_id == request.end_id:  # neither emitted nor counted
            sequence.has_ended = True
            return
        sequence.output.append(token_id)
        # the layer that samples where guesses are taken writes no log-probs, whatever is asked
        is_told = request.has_sampling and not self._config.engine.takes_drafts
        sequence.log_probs.append(log_prob if is_told else 0.0)
        sequence.has_ended = len(sequence.output) >= running.max_new_tokens or any(
            tuple(sequence.output[-len(word) :]) == word for word in request.stop_words
        )

    def _choose(self, running: Running, sequence: Sequence) -> tuple[int, float]:
        request = running.request
        engine = self._config.engine
        context = request.prompt + sequence.output
        raw = _noise(context, running.adapter, engine.vocab_size)
        if engine.slips_every and sum(context[-CONTEXT:]) % engine.slips_every == 0:
            raw = np.roll(raw, 1)
        logits = raw.copy()
        if request.bias is not None:
            logits += request.bias[: len(logits)]
        _penalize(logits, request, sequence.output)
        _ban(logits, request.bad_words, sequence.output)
        if request.end_id >= 0 and len(sequence.output) < request.min_tokens:
            logits[request.end_id] = -np.inf
        if sequence.matcher is not None:
            allowed = np.frombuffer(sequence.matcher.compute_logit_bias(), np.uint8) != 0
            logits[~allowed[: len(logits)]] = -np.inf
        token_id = _sample(logits, request, sequence.random)
        if sequence.matcher is not None:
            sequence.matcher.consume_token(token_id)
        return token_id, float(_log_softmax(raw)[token_id])


def _outputs(running: Running, sequence: Sequence) -> Outputs | str:
    request = running.request
    for name in ("output_ids", "sequence_length"):
        if request.outputs and name not in request.outputs:
            return f"{name} tensor must be present in list of output tensors"
    token_ids = sequence.output[sequence.num_sent :]
    sequence.num_sent = len(sequence.output)
    if not (request.streaming or request.excludes_input):
        token_ids = request.prompt + token_ids
    outputs: Outputs = {
        "output_ids": np.array([[token_ids]], np.int32),
        "sequence_length": np.array([[len(token_ids)]], np.int32),
    }
    if request.returns_log_probs:
        outputs["output_log_probs"] = np.array([[sequence.log_probs]], np.float32)  # it grows
        outputs["cum_log_probs"] = np.array([[sum(sequence.log_probs)]], np.float32)
    if request.num_sequences > 1:
        outputs["sequence_index"] = np.array([[sequence.index]], np.int32)
    if request.returns_num_tokens[0]:
        outputs["num_input_tokens"] = np.array([[len(request.prompt)]], np.int32)
    if request.returns_num_tokens[1]:
        outputs["num_output_tokens"] = np.array([[len(sequence.output)]], np.int32)
    if request.returns_perf_metrics:
        outputs |= _perf_metrics(running)
    return outputs


def _perf_metrics(running: Running) -> Outputs:
    """Sent whether they were listed or not."""
    num_blocks = len(running.request.prompt) // BLOCK + 1
    integers = {
        "kv_cache_alloc_new_blocks": num_blocks,
        "kv_cache_reused_blocks": 0,
        "kv_cache_alloc_total_blocks": num_blocks,
        "total_accepted_draft_tokens": running.num_accepted,
        "total_draft_tokens": len(running.drafts),
    }
    times = {
        "arrival_time_ns": running.arrival_ns,
        "first_scheduled_time_ns": running.arrival_ns,
        "first_token_time_ns": running.first_token_ns,
        "last_token_time_ns": time.monotonic_ns(),
    }
    return {
        **{name: np.array([[value]], np.int32) for name, value in integers.items()},
        **{name: np.array([[value]], np.int64) for name, value in times.items()},
        "acceptance_rate": np.array(
            [[running.num_accepted / max(len(running.drafts), 1)]], np.float32
        ),
    }


def _noise(token_ids: list[int], adapter: int, vocab_size: int) -> NDArray[np.float32]:
    key = np.array([adapter, *token_ids[-CONTEXT:]], np.int64).tobytes()
    seed = int.from_bytes(hashlib.sha256(key).digest()[:8], "little")
    noise = np.random.default_rng(seed).normal(scale=3.0, size=vocab_size)
    return noise.astype(np.float32)


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def _penalize(logits: NDArray[np.float32], request: Request, output: list[int]) -> None:
    for token_id in set(request.prompt + output):
        value = logits[token_id]
        penalty = request.repetition_penalty
        logits[token_id] = value * penalty if value < 0 else value / penalty
    for token_id in set(output):
        logits[token_id] -= request.presence_penalty
        logits[token_id] -= request.frequency_penalty * output.count(token_id)


def _ban(logits: NDArray[np.float32], words: Words, output: list[int]) -> None:
    for word in words:
        if tuple(output[len(output) - len(word) + 1 :]) == word[:-1]:
            logits[word[-1]] = -np.inf


def _sample(logits: NDArray[np.float32], request: Request, random: np.random.Generator) -> int:
    """Greedy with neither top_k nor top_p; a top_p of 0 or less counts as none."""
    top_p = request.top_p if 0 < request.top_p < 1 else 1.0
    if request.top_k == 1 or (request.top_k <= 0 and request.top_p <= 0):
        return int(logits.argmax())
    scaled = logits / max(request.temperature, 1e-6)
    if request.top_k > 0:
        scaled[scaled < np.sort(scaled)[-request.top_k]] = -np.inf
    probabilities = np.exp(_log_softmax(scaled))
    order = np.argsort(-probabilities)
    kept = np.cumsum(probabilities[order]) - probabilities[order] < top_p
    probabilities[order[~kept]] = 0
    return int(random.choice(len(logits), p=probabilities / probabilities.sum()))


def _tokenizer(config: BackendConfig) -> llguidance.LLTokenizer | None:
    if config.guide_info is None:
        return None
    return llguidance.LLTokenizer(
        config.guide_info["tokenizer_str"],
        n_vocab=config.engine.vocab_size,
        eos_token=config.guide_info["stop_token_ids"],
    )


def _grammar(guide_type: str, guide: str) -> str:
    matcher = llguidance.LLMatcher
    match guide_type:
        case "json":
            return str(matcher.grammar_from_json_schema({"type": "object"}))
        case "json_schema":
            return str(matcher.grammar_from_json_schema(json.loads(guide)))
        case "regex":
            return str(matcher.grammar_from_regex(guide))
        case _:
            return str(matcher.grammar_from_lark(guide))
