"""tensorrt_llm/executor: what a request is given and what it gives back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from tensorrt_llm.sampling_params import SamplingParams


class RequestError(RuntimeError):
    """The error raised when the request is failed."""


@dataclass(slots=True)
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str = ""

    def __post_init__(self) -> None:
        if self.lora_path is not None and not os.path.exists(self.lora_path):
            raise ValueError(f"lora_path ({self.lora_path}) does not exist.")


@dataclass(slots=True)
class Logprob:
    logprob: float
    rank: int | None = None


@dataclass(slots=True)
class TimingMetrics:
    arrival_time: timedelta
    first_scheduled_time: timedelta
    first_token_time: timedelta
    last_token_time: timedelta


@dataclass(slots=True)
class KvCacheMetrics:
    num_total_allocated_blocks: int
    num_new_allocated_blocks: int
    num_reused_blocks: int


@dataclass(slots=True)
class RequestPerfMetrics:
    timing_metrics: TimingMetrics
    kv_cache_metrics: KvCacheMetrics


@dataclass(slots=True)
class CompletionOutput:
    """token_ids and logprobs grow with every step."""

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    prompt_logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    request_perf_metrics: RequestPerfMetrics | None = None


@dataclass(slots=True)
class Response:
    """What one step of the executor tells of one sequence."""

    sequence_index: int
    token_ids: list[int]
    logprobs: list[dict[int, Logprob]]
    is_final: bool  # of the request
    finish_reason: str | None
    cached_tokens: int
    perf_metrics: RequestPerfMetrics | None = None


class RequestOutput:
    """An async iterator that gives itself, grown, after each step."""

    def __init__(
        self, request_id: int, prompt_token_ids: list[int], params: SamplingParams,
        abort: Callable[[int], None],
    ) -> None:  # fmt: skip
        self.request_id = request_id
        self.prompt = None
        self.prompt_token_ids = prompt_token_ids
        self.outputs = [CompletionOutput(index) for index in range(params.n)]
        self.cached_tokens = 0
        self.finished = False
        self._params = params
        self._abort = abort
        self._is_aborted = False
        self._loop = asyncio.get_running_loop()  # the real one has no async queue without a loop
        self._queue: asyncio.Queue[Response | Exception] = asyncio.Queue()

    def abort(self) -> None:
        self._abort(self.request_id)
        self._is_aborted = True

    def aborted(self) -> bool:
        return self._is_aborted

    def __aiter__(self) -> RequestOutput:
        return self

    async def __anext__(self) -> RequestOutput:
        if self.finished:
            raise StopAsyncIteration
        item = await self._queue.get()
        if isinstance(item, Exception):
            raise item
        self._handle(item)
        return self

    def put(self, item: Response | Exception) -> None:
        """Called by the executor's thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    def _handle(self, response: Response) -> None:
        output = self.outputs[response.sequence_index]
        output.token_ids = [*output.token_ids, *response.token_ids]
        output.logprobs = [*output.logprobs, *response.logprobs]
        self.cached_tokens = response.cached_tokens
        self.finished = response.is_final
        if response.finish_reason == "cancelled":
            output.finish_reason = "cancelled"
        if self.finished:  # said of the sequence that ends the request only
            output.finish_reason = response.finish_reason
            output.request_perf_metrics = response.perf_metrics
            self._hide_stop_token(output)

    def _hide_stop_token(self, output: CompletionOutput) -> None:
        stop_ids = self._params.stop_token_ids or []
        if output.finish_reason == "stop" and output.token_ids and output.token_ids[-1] in stop_ids:
            output.stop_reason = output.token_ids[-1]
            if not self._params.include_stop_str_in_output:
                output.token_ids = output.token_ids[:-1]


class IterationResult:
    """Ends when nothing has come for `timeout` seconds."""

    def __init__(self, queue: asyncio.Queue[dict[str, Any]], timeout: float) -> None:
        self._queue = queue
        self._timeout = timeout

    def __aiter__(self) -> IterationResult:
        return self

    async def __anext__(self) -> dict[str, Any]:
        try:
            return await asyncio.wait_for(self._queue.get(), self._timeout)
        except TimeoutError:
            raise StopAsyncIteration from None
