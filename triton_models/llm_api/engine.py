"""Drives `tensorrt_llm.LLM` on an asyncio thread of its own, behind the Engine protocol.

The LLM API batches in flight by itself: every request is handed on at once and read as it comes.
When what runs the model dies, all its requests fail and it is started again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from triton_models.contract import GUIDE_TYPE_TENSOR, FinishReason
from triton_models.errors import (
    EngineClosedError,
    EngineDiedError,
    EngineError,
    InvalidArgumentError,
    PromptTooLongError,
    QueueFullError,
)
from triton_models.llm_api import upstream
from triton_models.llm_api.output import SequenceReader
from triton_models.llm_api.sampling import dense_bias, num_submitted, sampling_values
from triton_models.llm_api.statistics import LlmStats, request_stats
from triton_models.request import EngineRequest, TokenEvent

logger = logging.getLogger(__name__)

FIRST_RESTART_S, MAX_RESTART_S = 0.1, 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmLimits:
    """In tokens, but for the last two, which count sequences and requests."""

    max_seq_len: int
    max_input_len: int
    vocab_size: int
    max_num_sequences: int  # that run at once
    max_queue_size: int  # that wait


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter of the artefact; `path` has it in Hugging Face's format."""

    name: str
    path: Path


@dataclass(slots=True)
class _Active:
    request: EngineRequest
    readers: list[SequenceReader]
    task: asyncio.Task[None] | None = None
    has_begun: set[int] = field(default_factory=set)  # sequences whose first event was sent


class LlmEngine:
    """Implements `triton_models.engine.Engine`."""

    def __init__(
        self, make_llm: Callable[[], Any], limits: LlmLimits, adapters: Mapping[int, Adapter]
    ) -> None:
        """Starts the LLM; what that raises is the caller's."""
        self._make_llm = make_llm
        self._limits = limits
        self._adapters = adapters
        self._lock = threading.Lock()
        self._active: dict[int, _Active] = {}
        self._handles = count()
        self._is_closed = False
        self._death: str | None = None  # why there is no LLM at the moment
        self._figures: dict[str, Any] = {}  # of the last iteration
        self._revival: asyncio.Task[None] | None = None
        self._llm = make_llm()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="llm-api", daemon=True)
        self._thread.start()
        self._watch = self._start(self._watch_figures())

    def submit(self, request: EngineRequest) -> int:
        """See Engine."""
        limits = self._limits
        num_tokens = len(request.prompt_token_ids)
        if num_tokens > limits.max_input_len:
            raise PromptTooLongError(num_tokens, limits.max_input_len)
        if request.num_sequences > limits.max_num_sequences:
            raise InvalidArgumentError(
                "num_return_sequences", f"{request.num_sequences} is above max_num_sequences"
            )
        max_new_tokens = min(request.max_new_tokens, limits.max_seq_len - num_tokens)
        arguments = self._arguments(request, max_new_tokens)
        readers = [
            SequenceReader(index, request, max_new_tokens) for index in range(request.num_sequences)
        ]
        active = _Active(request, readers)
        with self._lock:
            if self._is_closed:
                raise EngineClosedError
            if self._death is not None:
                raise EngineDiedError(self._death)
            if self._num_sequences() >= limits.max_num_sequences + limits.max_queue_size:
                raise QueueFullError
            handle = next(self._handles)
            self._active[handle] = active
        self._loop.call_soon_threadsafe(self._begin, handle, active, arguments)
        return handle

    def cancel(self, handle: int) -> None:
        """See Engine."""
        self._loop.call_soon_threadsafe(self._cancel, handle)

    def stats(self) -> LlmStats:
        """Figures for the gauges: what runs by our own count, blocks as of the last iteration."""
        with self._lock:
            num_active = self._num_sequences()
        return LlmStats.of(self._figures, num_active, self._limits.max_num_sequences)

    def close(self) -> None:
        """See Engine."""
        with self._lock:
            self._is_closed = True
        self._watch.cancel()
        self._start(self._close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._llm.shutdown()

    def _num_sequences(self) -> int:
        return sum(active.request.num_sequences for active in self._active.values())

    def _arguments(self, request: EngineRequest, max_new_tokens: int) -> dict[str, Any]:
        """Of `LLM.generate_async`. Raises EngineError for what it cannot be told."""
        values = sampling_values(request, max_new_tokens)
        if request.sampling.bias_token_ids is not None:
            bias = dense_bias(request.sampling, self._limits.vocab_size)
            values["embedding_bias"] = upstream.bias_tensor(bias)
        if request.guide_text is not None:
            guide_type, guide = request.guide_text
            try:
                values["guided_decoding"] = upstream.guided_decoding(guide_type, guide)
            except KeyError as exc:
                raise InvalidArgumentError(GUIDE_TYPE_TENSOR, f"unknown: {guide_type!r}") from exc
        try:
            sampling_params = upstream.sampling_params(**values)
        except ValueError as exc:
            raise EngineError(f"TensorRT-LLM refuses the request: {exc}") from exc
        arguments: dict[str, Any] = {
            "inputs": request.prompt_token_ids,
            "sampling_params": sampling_params,
            "streaming": True,
        }
        if request.lora_task_id is not None:
            arguments["lora_request"] = self._lora_request(request.lora_task_id)
        if request.cache_salt is not None:
            arguments["cache_salt"] = str(request.cache_salt)
        return arguments

    def _lora_request(self, task_id: int) -> Any:
        adapter = self._adapters.get(task_id)
        if adapter is None:
            known = ", ".join(str(known) for known in sorted(self._adapters)) or "none"
            raise InvalidArgumentError(
                "lora_task_id", f"{task_id} is not an adapter here ({known})"
            )
        return upstream.lora_request(adapter.name, task_id, adapter.path)

    # ---- the loop's thread

    def _start(self, work: Coroutine[Any, Any, None]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _begin(self, handle: int, active: _Active, arguments: dict[str, Any]) -> None:
        if handle not in self._active:
            return  # cancelled, or failed with the others
        active.task = self._loop.create_task(self._run(handle, active, arguments))

    def _cancel(self, handle: int) -> None:
        active = self._active.get(handle)
        if active is None:
            return
        self._forget(handle)
        if active.task is not None:
            active.task.cancel()
        ends = [
            reader.end(FinishReason.CANCELLED)
            for reader in active.readers
            if reader.reason is FinishReason.NONE
        ]
        for event in ends:
            active.request.on_event(replace(event, is_final=event is ends[-1]))

    async def _run(self, handle: int, active: _Active, arguments: dict[str, Any]) -> None:
        """One request from its beginning to its end. Who cancels the task has answered for it."""
        result = None
        try:
            result = self._llm.generate_async(**arguments)
            async for output in result:
                if self._read(active, output):
                    break
            self._end(handle, active, result)
        except asyncio.CancelledError:
            _abort(result)
            raise
        except (EngineError, ValueError) as exc:  # ValueError: the API's word for a bad request
            _abort(result)
            self._fail(handle, active, str(exc))
        except upstream.RequestError as exc:
            self._fail(handle, active, f"TensorRT-LLM: {exc}")
        except Exception as exc:  # not of this request: the LLM itself is broken
            logger.exception("the LLM has died")
            self._fail(handle, active, str(EngineDiedError(repr(exc))))
            self._die(repr(exc))

    def _read(self, active: _Active, output: Any) -> bool:
        """Sends what is new; True when every sequence has ended."""
        events: list[TokenEvent] = []
        num_outputs = num_submitted(active.request)
        for index, reader in enumerate(active.readers):
            completion = output.outputs[index % num_outputs]
            new = reader.read(completion, is_last=output.finished)
            if new and index not in active.has_begun:
                active.has_begun.add(index)
                new[0] = replace(new[0], stats=request_stats(output, completion))
            if new and reader.reason is not FinishReason.NONE:
                new[-1] = replace(new[-1], stats=request_stats(output, completion))
            events += new
        has_ended = all(reader.reason is not FinishReason.NONE for reader in active.readers)
        if has_ended:
            events[-1] = replace(events[-1], is_final=True)
        for event in events:
            active.request.on_event(event)
        return has_ended

    def _end(self, handle: int, active: _Active, result: Any) -> None:
        if not result.finished:  # a stop word of several tokens, which only we know
            _abort(result)
        if any(reader.reason is FinishReason.NONE for reader in active.readers):
            self._fail(handle, active, "TensorRT-LLM ended the request without its last output")
            return
        self._forget(handle)

    def _fail(self, handle: int, active: _Active, message: str) -> None:
        self._forget(handle)
        active.request.on_event(TokenEvent(sequence_index=0, is_final=True, error=message))

    def _forget(self, handle: int) -> None:
        with self._lock:
            self._active.pop(handle, None)

    async def _close(self) -> None:
        await self._end_all(EngineClosedError())
        if self._revival is not None:
            await self._revival

    async def _end_all(self, error: EngineError) -> None:
        """Fails every request; returns when their tasks have ended."""
        tasks = []
        for handle, active in list(self._active.items()):
            if active.task is not None:
                active.task.cancel()
                tasks.append(active.task)
            self._fail(handle, active, str(error))
        await asyncio.gather(*tasks, return_exceptions=True)

    def _die(self, why: str) -> None:
        with self._lock:
            if self._death is not None or self._is_closed:
                return
            self._death = why
        self._revival = self._loop.create_task(self._revive(why))

    async def _revive(self, why: str) -> None:
        await self._end_all(EngineDiedError(why))
        delay_s = FIRST_RESTART_S
        while not self._is_closed:
            try:
                self._llm = await asyncio.to_thread(self._restart)
            except Exception:  # whatever it is, it is tried again
                logger.exception("the LLM cannot be started again")
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, MAX_RESTART_S)
            else:
                logger.warning("the LLM runs again")
                with self._lock:
                    self._death = None
                return

    def _restart(self) -> Any:
        try:
            self._llm.shutdown()
        except Exception:  # it is broken already
            logger.exception("the LLM did not shut down")
        return self._make_llm()

    async def _watch_figures(self) -> None:
        """Keeps the last iteration's statistics; the API hands them out as they are made."""
        while True:
            try:
                async for figures in self._llm.get_stats_async(timeout=1):
                    self._figures = figures
            except asyncio.CancelledError:
                raise
            except Exception:  # of a dying LLM
                logger.debug("no statistics", exc_info=True)
            await asyncio.sleep(0.05)


def _abort(result: Any) -> None:
    if result is None:
        return
    try:
        result.abort()
    except Exception:  # of a dead LLM, which has nothing to abort any more
        logger.warning("abort failed", exc_info=True)
