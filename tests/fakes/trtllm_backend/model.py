"""What Triton calls: enqueues, stops, and watches for clients that have left."""

from __future__ import annotations

import json
import threading
from typing import Any

import triton_python_backend_utils as pb_utils

from tests.fakes.trtllm_backend.config import BackendConfig
from tests.fakes.trtllm_backend.executor import Executor, Outputs
from tests.fakes.trtllm_backend.requests import EnqueueError, is_stop, read_request

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class _Sender:
    """The responses of one request."""

    def __init__(self, sender: Any) -> None:
        self._sender = sender
        self._lock = threading.Lock()  # Triton must not be asked after the last response
        self._is_over = False

    def send(self, outputs: Outputs | str, is_final: bool) -> None:
        with self._lock:
            if self._is_over:
                return
            self._is_over = is_final or isinstance(outputs, str)
            if isinstance(outputs, str):
                response = pb_utils.InferenceResponse(error=pb_utils.TritonError(outputs))
            else:
                tensors = [pb_utils.Tensor(name, value) for name, value in outputs.items()]
                response = pb_utils.InferenceResponse(tensors)
            self._sender.send(response, flags=FINAL if self._is_over else 0)
            if self._is_over:
                self._sender = None  # it keeps the model loaded

    def has_left(self) -> bool:
        with self._lock:
            return not self._is_over and bool(self._sender.is_cancelled())

    @property
    def is_over(self) -> bool:
        return self._is_over


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self._config = BackendConfig.read(json.loads(args["model_config"]))
        self._executor = Executor(self._config)
        self._requests: dict[str, int] = {}  # by the client's id: the last one
        self._watched: dict[int, _Sender] = {}
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            sender = _Sender(request.get_response_sender())
            try:
                if is_stop(tensors):
                    self._stop(request.request_id())
                    sender.send({}, True)
                    continue
                outputs = frozenset(request.requested_output_names())
                parsed = read_request(tensors, outputs, self._config)
                executor_id = self._executor.enqueue(parsed, sender.send)
            except EnqueueError as exc:
                sender.send(str(exc), True)
                continue
            self._watched[executor_id] = sender
            if request.request_id():
                self._requests[request.request_id()] = executor_id

    def finalize(self) -> None:
        self._closing.set()
        self._watcher.join()
        self._executor.close()

    def _stop(self, request_id: str) -> None:
        if not request_id:
            raise EnqueueError("Trying to stop a request but request ID is not provided")
        if request_id in self._requests:
            self._executor.cancel(self._requests[request_id])

    def _watch(self) -> None:
        while not self._closing.wait(self._config.cancellation_check_period_ms / 1000):
            self._look()

    def _look(self) -> None:
        """A method of its own: what a waiting thread still names keeps the model loaded."""
        for executor_id, sender in list(self._watched.items()):
            if sender.is_over:
                del self._watched[executor_id]
            elif sender.has_left():
                self._executor.cancel(executor_id)
