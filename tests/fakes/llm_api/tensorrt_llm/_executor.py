"""The worker: steps all requests together in a thread of its own, as the real one in a process."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any

import numpy as np
from tensorrt_llm._noise_model import (
    Matcher,
    NoiseModel,
    Sampler,
    Script,
    log_prob_table,
)
from tensorrt_llm.executor import (
    KvCacheMetrics,
    Logprob,
    RequestError,
    RequestOutput,
    RequestPerfMetrics,
    Response,
    TimingMetrics,
)
from tensorrt_llm.sampling_params import SamplingParams

TOKENS_PER_BLOCK = 32
MAX_BLOCKS = 1000


@dataclass
class Sequence:
    index: int
    random: np.random.Generator
    matcher: Matcher | None
    output: list[int] = field(default_factory=list)
    finish_reason: str | None = None


@dataclass
class Running:
    result: RequestOutput
    params: SamplingParams
    lora_id: int
    salt: str | None
    cached_tokens: int
    sequences: list[Sequence]
    arrival: float = field(default_factory=time.monotonic)
    first_scheduled: float = 0.0
    first_token: float = 0.0


class Executor:
    def __init__(
        self, model: NoiseModel, sampler: Sampler, tokenizer: Any, script: Script,
        max_batch_size: int, has_stats: bool,
    ) -> None:  # fmt: skip
        self._model, self._sampler, self._tokenizer = model, sampler, tokenizer
        self._script = script
        self._max_batch_size = max_batch_size
        self._has_stats = has_stats
        self._ids = count(1)
        self._num_come = 0
        self._running: dict[int, Running] = {}
        self._aborted: set[int] = set()
        self._prefixes: set[tuple[Any, ...]] = set()
        self._stats: tuple[asyncio.AbstractEventLoop, asyncio.Queue[dict[str, Any]]] | None = None
        self._wake = threading.Condition()
        self.death: str | None = None
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def generate_async(
        self, prompt: list[int], params: SamplingParams, lora_id: int, salt: str | None
    ) -> RequestOutput:
        result = RequestOutput(next(self._ids), prompt, params, self.abort)
        guide = params.guided_decoding
        sequences = [
            Sequence(
                index,
                self._sampler.generator(params),
                None if guide is None else Matcher(self._tokenizer, guide),
            )
            for index in range(params.n)
        ]
        with self._wake:
            running = Running(
                result, params, lora_id, salt, self._cached(prompt, lora_id, salt), sequences
            )
            self._running[result.request_id] = running
            self._num_come += 1
            self._wake.notify()
        return result

    def abort(self, request_id: int) -> None:
        with self._wake:
            self._aborted.add(request_id)

    def stats_queue(self) -> asyncio.Queue[dict[str, Any]]:
        if self._stats is None:
            self._stats = (asyncio.get_running_loop(), asyncio.Queue())
        return self._stats[1]

    def shutdown(self) -> None:
        with self._wake:
            self._is_closing = True
            self._wake.notify()
        self._thread.join()

    def _cached(self, prompt: list[int], lora_id: int, salt: str | None) -> int:
        """Tokens of whole blocks that an earlier prompt had, too."""
        cached = 0
        for end in range(TOKENS_PER_BLOCK, len(prompt), TOKENS_PER_BLOCK):
            key = (lora_id, salt, *prompt[:end])
            if key in self._prefixes and cached == end - TOKENS_PER_BLOCK:
                cached = end
            self._prefixes.add(key)
        return cached

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._is_closing and (
                    not self._running or self._num_come < self._script.start_together
                ):
                    self._wake.wait()
                if self._is_closing:
                    return
                batch = list(self._running.values())[: self._max_batch_size]
            self._report(len(batch))
            for running in batch:
                self._step(running)
                if self.death is not None:
                    for other in list(self._running.values()):
                        other.result.put(RuntimeError(self.death))
                    return
            time.sleep(self._script.step_s)

    def _step(self, running: Running) -> None:
        request_id = running.result.request_id
        running.first_scheduled = running.first_scheduled or time.monotonic()
        if request_id in self._aborted:
            for sequence in running.sequences:
                sequence.finish_reason = "cancelled"
            del self._running[request_id]
            running.result.put(self._response(running, running.sequences[-1], [], []))
            return
        for sequence in running.sequences:
            if sequence.finish_reason is None:
                self._advance(running, sequence)
        if self._meets_its_fate(running):
            return
        if all(sequence.finish_reason for sequence in running.sequences):
            del self._running[request_id]

    def _meets_its_fate(self, running: Running) -> bool:
        first = running.result.prompt_token_ids[0]
        if len(running.sequences[0].output) < 2 or first not in (
            self._script.fail_on,
            self._script.die_on,
        ):
            return False
        if first == self._script.die_on:
            self.death = "CUDA error: an illegal memory access was encountered"
        else:
            running.result.put(RequestError("the request ran into trouble"))
            del self._running[running.result.request_id]
        return True

    def _advance(self, running: Running, sequence: Sequence) -> None:
        new: list[int] = []
        tables: list[dict[int, Logprob]] = []
        for _ in range(self._script.tokens_per_step):
            token_id, table = self._next(running, sequence)
            new.append(token_id)
            sequence.output.append(token_id)
            if table is not None:
                tables.append(table)
            sequence.finish_reason = _finish_reason(sequence.output, running.params)
            if sequence.finish_reason is not None:
                break
        running.first_token = running.first_token or time.monotonic()
        running.result.put(self._response(running, sequence, new, tables))

    def _next(self, running: Running, sequence: Sequence) -> tuple[int, dict[int, Logprob] | None]:
        context = running.result.prompt_token_ids + sequence.output
        logits = self._model.logits(context, running.lora_id)
        token_id = self._sampler.choose(
            logits, running.params, sequence.output, sequence.matcher, sequence.random
        )
        if sequence.matcher is not None:
            sequence.matcher.accept(token_id)
        k = self._sampler.num_log_probs(running.params)
        return token_id, log_prob_table(logits, token_id, k) if k else None

    def _response(
        self, running: Running, sequence: Sequence, new: list[int], tables: list[dict[int, Logprob]]
    ) -> Response:
        is_final = all(one.finish_reason for one in running.sequences)
        metrics = _metrics(running) if is_final and running.params.return_perf_metrics else None
        return Response(
            sequence.index,
            new,
            tables,
            is_final,
            sequence.finish_reason,
            running.cached_tokens,
            metrics,
        )

    def _report(self, num_scheduled: int) -> None:
        if not self._has_stats or self._stats is None:
            return
        used = sum(
            len(one.result.prompt_token_ids) // TOKENS_PER_BLOCK + 1
            for one in list(self._running.values())
        )
        loop, queue = self._stats
        figures = {
            "numActiveRequests": len(self._running),
            "kvCacheStats": {
                "maxNumBlocks": MAX_BLOCKS,
                "freeNumBlocks": MAX_BLOCKS - used,
                "usedNumBlocks": used,
                "tokensPerBlock": TOKENS_PER_BLOCK,
                "reusedBlocks": 0,
            },
            "inflightBatchingStats": {"numScheduledRequests": num_scheduled},
        }
        if not loop.is_closed():
            loop.call_soon_threadsafe(queue.put_nowait, figures)


def _finish_reason(output: list[int], params: SamplingParams) -> str | None:
    """In the order of the TorchSampler: end id, length, stop words."""
    if output[-1] == params.end_id and not params.ignore_eos:
        return "stop"
    if len(output) >= params.max_tokens:
        return "length"
    return "stop" if output[-1] in (params.stop_token_ids or []) else None


def _metrics(running: Running) -> RequestPerfMetrics:
    num_blocks = len(running.result.prompt_token_ids) // TOKENS_PER_BLOCK + 1
    num_reused = running.cached_tokens // TOKENS_PER_BLOCK
    times = (running.arrival, running.first_scheduled, running.first_token, time.monotonic())
    return RequestPerfMetrics(
        TimingMetrics(*(timedelta(seconds=one) for one in times)),
        KvCacheMetrics(num_blocks, num_blocks - num_reused, num_reused),
    )
