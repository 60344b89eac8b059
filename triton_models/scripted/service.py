"""Takes requests from Triton and plays each in a thread of its own, so that every response brings
exactly the tokens that the script says.

Speaks to Triton through a Channel, so that it can be tested without one.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from triton_models.channel import Channel
from triton_models.encoder import ResponseEncoder
from triton_models.errors import EngineClosedError, EngineError, PromptTooLongError
from triton_models.request import TokenEvent
from triton_models.scripted.performance import Performance
from triton_models.scripted.script import Script, Take
from triton_models.wire import Tensors, WireRequest, decode, is_stop

logger = logging.getLogger(__name__)

SCRIPT_FILE = "script.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedSettings:
    """The names are those of the parameters in scripted/config.pbtxt."""

    artefact_dir: Path
    max_seq_len: int
    max_input_len: int
    vocab_size: int
    exclude_input_in_output: bool = True
    cancellation_check_period_ms: int = 10


class NoScenarioError(EngineError):
    """No scenario of the script matches the prompt."""

    def __init__(self) -> None:
        super().__init__(f"No scenario of {SCRIPT_FILE} matches the prompt")


class _Run:
    """A request that is being played."""

    def __init__(self, request_id: str, request: WireRequest, take: Take, channel: Channel) -> None:
        self.request_id = request_id
        self.request = request
        self.take = take
        self.channel = channel
        self.encoder = ResponseEncoder(request)
        self.is_stopped = threading.Event()


class ScriptedService:
    """Takes requests on and answers each, errors included."""

    def __init__(self, settings: ScriptedSettings) -> None:
        """Raises ScriptError."""
        self._settings = settings
        tokenizer_file = settings.artefact_dir / "tokenizer" / "tokenizer.json"
        tokenizer: Tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self._script = Script.read(settings.artefact_dir / SCRIPT_FILE, tokenizer)
        self._period_s = settings.cancellation_check_period_ms / 1000
        self._lock = threading.Lock()
        self._runs: dict[_Run, threading.Thread] = {}
        self._is_closing = False

    def handle(self, request_id: str, tensors: Tensors, channel: Channel) -> None:
        """Starts one request; every request gets a final response."""
        try:
            if is_stop(tensors):
                self._stop(request_id)
                channel.send({}, is_final=True)
                return
            run = self._accept(request_id, tensors, channel)
        except EngineError as exc:
            channel.send_error(str(exc))
            return
        thread = threading.Thread(target=self._play, args=(run,), name="scripted", daemon=True)
        with self._lock:
            self._runs[run] = thread
        thread.start()

    def close(self) -> None:
        """Ends all requests with an error, and their threads."""
        self._is_closing = True
        with self._lock:
            runs = dict(self._runs)
        for run in runs:
            run.is_stopped.set()
        for thread in runs.values():
            thread.join()

    def _accept(self, request_id: str, tensors: Tensors, channel: Channel) -> _Run:
        settings = self._settings
        request = decode(
            tensors,
            settings.vocab_size,
            exclude_input_in_output=settings.exclude_input_in_output,
        )
        num_tokens = len(request.prompt_token_ids)
        if num_tokens > settings.max_input_len:
            raise PromptTooLongError(num_tokens, settings.max_input_len)
        take = self._script.choose(request.prompt_token_ids, is_guided=request.guide is not None)
        if take is None:
            raise NoScenarioError
        return _Run(request_id, request, take, channel)

    def _stop(self, request_id: str) -> None:
        """Cancels all requests of an id; an unknown one is no error, as upstream."""
        if not request_id:
            raise EngineError("Trying to stop a request but request ID is not provided")
        with self._lock:
            for run in self._runs:
                if run.request_id == request_id:
                    run.is_stopped.set()

    def _play(self, run: _Run) -> None:
        try:
            self._perform(run)
        except EngineError as exc:
            run.channel.send_error(str(exc))
        except Exception:  # a client's broken channel
            logger.exception("playing failed")
        finally:
            with self._lock:
                del self._runs[run]

    def _perform(self, run: _Run) -> None:
        settings, request = self._settings, run.request
        room = settings.max_seq_len - len(request.prompt_token_ids)
        performance = Performance(
            request,
            run.take,
            max_new_tokens=min(request.max_new_tokens, room),
            vocab_size=settings.vocab_size,
        )
        scenario = run.take.scenario
        held: list[list[TokenEvent]] = [[] for _ in range(request.num_sequences)]
        delay_ms = scenario.first_delay_ms + scenario.step_delay_ms
        while not performance.is_finished:
            is_cancelled = self._is_cancelled_within(run, delay_ms / 1000)
            responses = performance.cancel() if is_cancelled else performance.step()
            delay_ms = scenario.step_delay_ms
            if request.streaming:
                _send(run, responses, is_last=performance.is_finished)
            else:
                for events in responses:
                    held[events[0].sequence_index] += events
        if not request.streaming:
            _send(run, held, is_last=True)

    def _is_cancelled_within(self, run: _Run, delay_s: float) -> bool:
        """Waits; True as soon as the request was stopped or its client has gone.

        Raises EngineClosedError.
        """
        deadline_s = time.monotonic() + delay_s
        while True:
            left_s = deadline_s - time.monotonic()
            is_stopped = run.is_stopped.wait(min(max(left_s, 0), self._period_s))
            if self._is_closing:
                raise EngineClosedError
            if is_stopped or run.channel.is_cancelled():
                return True
            if left_s <= self._period_s:
                return False


def _send(run: _Run, responses: list[list[TokenEvent]], *, is_last: bool) -> None:
    for events in responses:
        is_final = is_last and events is responses[-1]
        run.channel.send(run.encoder.encode(events), is_final=is_final)
