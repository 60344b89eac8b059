"""A client that speaks tensors: ModelStreamInfer, one stream a request, read to its very end."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from frontend.triton.server import LOOPBACK, Ports
from tests.unit.triton_models.test_wire import NUMPY, SPECS

PLAIN = ("output_ids", "sequence_length", "finish_reason")

Outputs = dict[str, NDArray[Any]]


@dataclass
class Answer:
    responses: list[Outputs]
    is_final: list[bool]
    error: str | None = None

    def token_ids(self, index: int = 0) -> list[int]:
        """Of one sequence."""
        return [
            int(token_id)
            for response in self.responses
            if index == int(response.get("sequence_index", np.zeros((1, 1)))[0, 0])
            for token_id in response.get("output_ids", np.zeros(0)).reshape(-1)
        ]


class TensorClient:
    """`model` and `prompt` of the requests that name none."""

    def __init__(self, ports: Ports, model: str, prompt: Sequence[int]) -> None:
        self._ports = ports
        self._model = model
        self._prompt = list(prompt)
        self.channel = grpc.insecure_channel(f"{LOOPBACK}:{ports.grpc}")
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def start(self, request_id: str = "", outputs: tuple[str, ...] = (), **values: Any) -> Any:
        """The stream of responses; a value of None leaves a tensor out."""
        request = service_pb2.ModelInferRequest(model_name=self._model, id=request_id)
        base = {
            "input_ids": [self._prompt],
            "input_lengths": [[len(self._prompt)]],
            "request_output_len": [[16]],
            "streaming": [[True]],
        }
        for name, value in (base | values).items():
            if value is not None:
                _add_input(request, name, value)
        for name in outputs:
            request.outputs.add(name=name)
        return self.stub.ModelStreamInfer(iter([request]))

    def infer(self, request_id: str = "", outputs: tuple[str, ...] = (), **values: Any) -> Answer:
        answer = Answer([], [])
        for message in self.start(request_id, outputs, **values):
            if message.error_message:
                answer.error = message.error_message
                continue
            response = message.infer_response
            answer.responses.append(
                {
                    tensor.name: np.frombuffer(raw, NUMPY[tensor.datatype]).reshape(tensor.shape)
                    for tensor, raw in zip(
                        response.outputs, response.raw_output_contents, strict=True
                    )
                }
            )
            answer.is_final.append(response.parameters["triton_final_response"].bool_param)
        return answer

    def gauges(self) -> dict[str, float]:
        """Of the model: label -> value."""
        url = f"http://{LOOPBACK}:{self._ports.metrics}/metrics"
        with urllib.request.urlopen(url) as response:
            text = response.read().decode()
        pattern = r'nv_trt_llm_\w+\{(.*?_type="(\w+)".*?)\} (\S+)'
        mine = f'model="{self._model}"'
        return {
            label: float(value)
            for labels, label, value in re.findall(pattern, text)
            if mine in labels
        }

    def wait_idle(self) -> float:
        """Seconds until nothing is active and all blocks are free."""
        start = time.monotonic()
        while True:
            gauges = self.gauges()
            if not gauges["active"] and not gauges["used"]:
                return time.monotonic() - start
            assert time.monotonic() - start < 10, gauges
            time.sleep(0.005)


def _add_input(request: Any, name: str, value: Any) -> None:
    datatype = SPECS[name].datatype
    tensor = request.inputs.add(name=name, datatype=datatype)
    if datatype == "BYTES":
        tensor.shape.extend([1, 1])
        request.raw_input_contents.append(len(value).to_bytes(4, "little") + value)
        return
    array = np.array(value, NUMPY[datatype])
    tensor.shape.extend(array.shape)
    request.raw_input_contents.append(array.tobytes())
