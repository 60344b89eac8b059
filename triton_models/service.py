"""Between Triton's requests and an engine: ids, cancellation, and the order of responses.

Speaks to Triton through a Channel, so that it can be tested without one.
"""

from __future__ import annotations

import logging
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count, groupby
from typing import Protocol

from triton_models.channel import Channel
from triton_models.contract import FinishReason
from triton_models.encoder import ResponseEncoder
from triton_models.engine import Engine
from triton_models.errors import EngineClosedError, EngineError
from triton_models.request import Guide, TokenEvent
from triton_models.wire import Tensors, WireRequest, decode, is_stop

logger = logging.getLogger(__name__)

# Sending is a round trip between two processes that waits more than it computes; a second thread
# doubles the rate, more do not help (facts of the data plane)
NUM_SENDERS = 2


class Compiler(Protocol):
    """Makes guides; GuideCompiler is one."""

    def compile(self, guide_type: str, guide: str) -> Guide:
        """Raises EngineError for a bad grammar."""


# Asking whether one client has gone takes 0.1 ms here and as much in Triton: this keeps it at 2 %
# of a core however many requests run. Our own frontend sends a `stop` request, heard at once.
CHECK_SPACING_S = 0.01


class ActiveRequest:
    """A request between its arrival and its final response."""

    def __init__(self, request_id: str, request: WireRequest, channel: Channel) -> None:
        self.request_id = request_id
        self.request = request
        self.channel = channel
        self.encoder = ResponseEncoder(request)
        self.handle: int | None = None  # None: not yet with the engine
        self.is_cancelled = False
        # The backend frees what is_cancelled() looks at when the final response is sent: it must
        # not be called later, so both are done under this lock.
        self.end_lock = threading.Lock()
        self.has_ended = False
        self.held: list[TokenEvent] = []  # streaming=false: everything until the end


class Service:
    """Takes requests on, answers each, and watches for clients that leave."""

    def __init__(
        self,
        engine: Engine,
        guides: Compiler | None,
        vocab_size: int,
        *,
        exclude_input_in_output: bool,
        cancellation_check_period_s: float,
        supported: frozenset[str] = frozenset(),
    ) -> None:
        """Without `guides` the engine compiles a request's guide by itself; for `supported` see
        `wire.decode`."""
        self._engine = engine
        self._guides = guides
        self._vocab_size = vocab_size
        self._exclude_input = exclude_input_in_output
        self._supported = supported
        self._period_s = cancellation_check_period_s
        self._lock = threading.Lock()
        self._active: dict[int, ActiveRequest] = {}
        self._keys = count()
        self._compilers = ThreadPoolExecutor(1, thread_name_prefix="guides")
        self._queues: list[queue.SimpleQueue[tuple[int, TokenEvent] | None]] = [
            queue.SimpleQueue() for _ in range(NUM_SENDERS)
        ]
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._send_loop, args=(q,), name="sender", daemon=True)
            for q in self._queues
        ]
        self._watcher = threading.Thread(target=self._watch, name="cancellation", daemon=True)
        for thread in (*self._threads, self._watcher):
            thread.start()

    def handle(self, request_id: str, tensors: Tensors, channel: Channel) -> None:
        """Starts one request; every request gets a final response, errors included."""
        try:
            if is_stop(tensors):
                self._stop(request_id)
                channel.send({}, is_final=True)
                return
            request = decode(
                tensors,
                self._vocab_size,
                exclude_input_in_output=self._exclude_input,
                supported=self._supported,
            )
        except EngineError as exc:
            channel.send_error(str(exc))
            return
        active = ActiveRequest(request_id, request, channel)
        with self._lock:
            key = next(self._keys)
            is_open = not self._closing.is_set()
            if is_open:
                self._active[key] = active
        if not is_open:
            channel.send_error(str(EngineClosedError()))
            return
        if request.guide is None or self._guides is None:
            self._submit(key, active)
        else:
            self._compilers.submit(self._submit, key, active)

    def close(self) -> None:
        """Ends all requests with an error, and all threads."""
        with self._lock:
            self._closing.set()
        self._watcher.join()
        self._compilers.shutdown()
        self._engine.close()
        for q in self._queues:
            q.put(None)
        for thread in self._threads:
            thread.join()

    def _submit(self, key: int, active: ActiveRequest) -> None:
        out = self._queues[key % NUM_SENDERS]
        guide = active.request.guide
        try:
            compiled = self._guides.compile(*guide) if guide and self._guides else None
            engine_request = active.request.to_engine(lambda event: out.put((key, event)), compiled)
            with self._lock:
                if not active.is_cancelled:
                    active.handle = self._engine.submit(engine_request)
                    return
            reason = FinishReason.CANCELLED
            out.put((key, TokenEvent(sequence_index=0, finish_reason=reason, is_final=True)))
        except EngineError as exc:
            out.put((key, TokenEvent(sequence_index=0, is_final=True, error=str(exc))))
        except Exception:
            logger.exception("submit failed")
            error = "Engine error: the request could not be started"
            out.put((key, TokenEvent(sequence_index=0, is_final=True, error=error)))

    def _stop(self, request_id: str) -> None:
        """Cancels all requests of an id; an unknown one is no error, as upstream."""
        if not request_id:
            raise EngineError("Trying to stop a request but request ID is not provided")
        with self._lock:
            targets = [a for a in self._active.values() if a.request_id == request_id]
        for active in targets:
            self._cancel(active)

    def _cancel(self, active: ActiveRequest) -> None:
        with self._lock:
            if active.is_cancelled:
                return
            active.is_cancelled = True
            handle = active.handle
        if handle is not None:
            self._engine.cancel(handle)

    def _watch(self) -> None:
        while not self._closing.wait(max(self._period_s, len(self._active) * CHECK_SPACING_S)):
            self._cancel_abandoned()

    def _cancel_abandoned(self) -> None:
        # A method of its own: a reference kept by a waiting thread would keep the model loaded
        with self._lock:
            targets = [a for a in self._active.values() if not a.is_cancelled]
        for active in targets:
            with active.end_lock:
                is_cancelled = not active.has_ended and active.channel.is_cancelled()
            if is_cancelled:
                self._cancel(active)

    def _send_loop(self, events: queue.SimpleQueue[tuple[int, TokenEvent] | None]) -> None:
        """Sends what has come since the last round, in one response a request."""
        is_open = True
        while is_open:
            batch = [events.get()]
            while not events.empty():
                batch.append(events.get())
            by_key: dict[int, list[TokenEvent]] = {}
            for item in batch:
                if item is None:
                    is_open = False
                else:
                    by_key.setdefault(item[0], []).append(item[1])
            for key, list_of_events in by_key.items():
                self._deliver_or_abandon(key, list_of_events)

    def _deliver_or_abandon(self, key: int, events: list[TokenEvent]) -> None:
        """A method of its own, as is `_cancel_abandoned`."""
        active = self._active.get(key)
        if active is None:
            return  # abandoned
        try:
            self._deliver(key, active, events)
        except Exception:  # one request's channel must not end the others' sender
            logger.exception("send failed")
            self._abandon(key, active)

    def _deliver(self, key: int, active: ActiveRequest, events: list[TokenEvent]) -> None:
        last = events[-1]
        if last.is_final:
            with self._lock:
                del self._active[key]
            with active.end_lock:
                active.has_ended = True
        if last.error is not None:
            active.channel.send_error(last.error)
            return
        if not active.request.streaming:
            active.held += events
            if not last.is_final:
                return
            events = sorted(active.held, key=lambda event: event.sequence_index)
        groups = [list(g) for _, g in groupby(events, key=lambda event: event.sequence_index)]
        for group in groups:
            active.channel.send(
                active.encoder.encode(group), is_final=last.is_final and group is groups[-1]
            )

    def _abandon(self, key: int, active: ActiveRequest) -> None:
        """Ends a request whose response could not be made or sent, and says so if that can be:
        Triton never unloads a model that owes it a final response."""
        with self._lock:
            self._active.pop(key, None)
        with active.end_lock:
            active.has_ended = True
        self._cancel(active)
        try:
            active.channel.send_error("Engine error: the answer could not be sent")
        except Exception:
            logger.exception("error not sent")
