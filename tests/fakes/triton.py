"""A Triton over real gRPC that behaves as the facts say, and does what a test tells it.

Delta tokens, the final flag together with tensors, errors in error_message with status OK, stop
requests by id, cancellation. tests/integration/test_triton_contract.py holds it to the real one.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import grpc
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from frontend.triton import tensors
from triton_models.contract import CPU_EXTRA_INPUTS, CPU_EXTRA_OUTPUTS, INPUTS, OUTPUTS

ALL_INPUTS = frozenset(tensor.name for tensor in (*INPUTS, *CPU_EXTRA_INPUTS))
ALL_OUTPUTS = frozenset(tensor.name for tensor in (*OUTPUTS, *CPU_EXTRA_OUTPUTS))
TRTLLM_INPUTS = frozenset(tensor.name for tensor in INPUTS)
TRTLLM_OUTPUTS = frozenset(tensor.name for tensor in OUTPUTS)


@dataclass(kw_only=True)
class FakeModel:
    """Generates `token_ids`, then ends; without them 100, 101, ... up to max_new_tokens."""

    name: str = "fake"
    variant: str = "q8_0"
    max_seq_len: int = 2048
    max_input_len: int = 2000
    vocab_size: int = 1000
    inputs: frozenset[str] = ALL_INPUTS
    outputs: frozenset[str] = ALL_OUTPUTS
    token_ids: list[int] | None = None  # then EOS
    tokens_per_response: int = 1
    delay_s: float = 0.0  # before each response
    error_after: tuple[int, str] | None = None  # (number of responses, error_message)
    is_loaded: bool = True
    load_failure: str | None = None
    # What it says of a load by us: the version, and the hash of its tokenizer. None: not by us.
    number: int = 1
    tokenizer_hash: str | None = None
    artefact_dir: str = ""
    max_adapters: int = 1
    adapters: list[int] = field(default_factory=list)  # task ids in its cache, the newest last


@dataclass(kw_only=True)
class ReceivedRequest:
    """What one inference request brought."""

    model: str
    request_id: str
    version: str = ""
    inputs: dict[str, tuple[tuple[int, ...], bytes]] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)

    def integers(self, name: str) -> list[int]:
        raw = self.inputs[name][1]
        return list(struct.unpack(f"<{len(raw) // 4}i", raw))

    def floats(self, name: str) -> list[float]:
        raw = self.inputs[name][1]
        return list(struct.unpack(f"<{len(raw) // 4}f", raw))

    def integer(self, name: str, default: int = 0) -> int:
        return self.integers(name)[0] if name in self.inputs else default

    def is_set(self, name: str) -> bool:
        return name in self.inputs and self.inputs[name][1][:1] == b"\1"


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """`async with FakeTriton(FakeModel(...)) as triton: TritonClient(triton.url)`"""

    def __init__(self, *models: FakeModel, port: int = 0) -> None:
        self.models = {model.name: model for model in models}
        self.port = port
        self.requests: list[ReceivedRequest] = []
        self.cancelled: list[str] = []
        self.active: set[str] = set()
        self.num_model_configs = 0
        self.hears_stops = True  # False: as an engine that knows only cancelled streams
        self._stopped: set[str] = set()
        self._server: grpc.aio.Server | None = None

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> FakeTriton:
        self._server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def stop(self, grace_s: float | None = None) -> None:
        if self._server is not None:
            await self._server.stop(grace_s)

    # ---- inference

    async def ModelStreamInfer(
        self, request_iterator: AsyncIterator[Any], context: Any
    ) -> AsyncGenerator[Any, None]:
        async for message in request_iterator:
            request = _received(message)
            self.requests.append(request)
            is_stop = request.is_set("stop")
            if not is_stop:
                self.active.add(request.request_id)
            try:
                async for response in self._answer(request):
                    yield response
            except (asyncio.CancelledError, GeneratorExit):  # while it waits, or while it sends
                self.cancelled.append(request.request_id)
                raise
            finally:
                if not is_stop:
                    self.active.discard(request.request_id)

    async def _answer(self, request: ReceivedRequest) -> AsyncGenerator[Any, None]:
        model = self.models.get(request.model)
        problem = self._problem(model, request)
        if problem is not None or model is None:
            yield _failure(request.request_id, problem or "")
        elif request.is_set("stop"):
            if self.hears_stops:
                self._stopped.add(request.request_id)
            yield _response(request, {}, is_final=True)
        else:
            async for response in self._generate(model, request):
                yield response

    def _problem(self, model: FakeModel | None, request: ReceivedRequest) -> str | None:
        if model is None or not model.is_loaded:
            return f"Request for unknown model: '{request.model}' is not found"
        if request.version not in ("", str(model.number)):
            name = f"'{request.model}' version {request.version}"
            return f"Request for unknown model: {name} is not found"
        if unknown := sorted(set(request.inputs) - model.inputs):
            return f"unexpected inference input '{unknown[0]}' for model '{model.name}'"
        if unknown := sorted(set(request.outputs) - model.outputs):
            return f"unexpected inference output '{unknown[0]}' for model '{model.name}'"
        num_tokens = len(request.integers("input_ids"))
        if num_tokens > model.max_input_len and not request.is_set("stop"):
            return (
                f"Prompt length ({num_tokens}) exceeds maximum input length "
                f"({model.max_input_len})."
            )
        return _adapter_problem(model, request)

    async def _generate(
        self, model: FakeModel, request: ReceivedRequest
    ) -> AsyncGenerator[Any, None]:
        plan = _plan(model, request)
        num_sequences = request.integer("num_return_sequences", 1)
        log_probs: list[float] = []
        for number, (token_ids, reason) in enumerate(plan):
            await asyncio.sleep(model.delay_s)
            if model.error_after is not None and number >= model.error_after[0]:
                yield _failure(request.request_id, model.error_after[1])
                return
            if request.request_id in self._stopped:
                token_ids, reason = [], 4
            log_probs += [-token_id / 1000 for token_id in token_ids]
            for index in range(num_sequences):
                outputs = _outputs(request, token_ids, log_probs)
                if num_sequences > 1:
                    outputs["sequence_index"] = ((1, 1), struct.pack("<i", index))
                if reason:
                    outputs["finish_reason"] = ((1, 1), struct.pack("<i", reason))
                if number == 0:
                    outputs["num_cached_tokens"] = ((1, 1), struct.pack("<i", 3))
                is_final = bool(reason) and index == num_sequences - 1
                yield _response(request, outputs, is_final=is_final)
            if reason == 4:
                return

    # ---- the rest of the service

    async def ServerReady(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerReadyResponse(ready=True)

    async def ModelReady(self, request: Any, context: Any) -> Any:
        model = self.models.get(request.name)
        return service_pb2.ModelReadyResponse(ready=model is not None and model.is_loaded)

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        self.num_model_configs += 1
        model = self.models.get(request.name)
        if model is None or not model.is_loaded:
            text = f"Request for unknown model: '{request.name}' is not found"
            await context.abort(grpc.StatusCode.NOT_FOUND, text)
        assert model is not None
        config = model_config_pb2.ModelConfig(name=model.name)
        for name in sorted(model.inputs):
            config.input.add(name=name)
        for name in sorted(model.outputs):
            config.output.add(name=name)
        if model.artefact_dir:
            config.parameters["artefact_dir"].string_value = model.artefact_dir
        for key in ("variant", "max_seq_len", "max_input_len", "vocab_size"):
            config.parameters[key].string_value = str(getattr(model, key))
        if model.tokenizer_hash is not None:
            config.version_policy.specific.versions.append(model.number)
            config.parameters["tokenizer_hash"].string_value = model.tokenizer_hash
        return service_pb2.ModelConfigResponse(config=config)

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:
        answer = service_pb2.RepositoryIndexResponse()
        for model in self.models.values():
            state = "READY" if model.is_loaded else "UNAVAILABLE"
            answer.models.add(name=model.name, version="1", state=state)
        return answer

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        model = self.models.get(request.model_name)
        failure = "failed to poll from model repository" if model is None else model.load_failure
        if failure is not None:
            text = f"failed to load '{request.model_name}', {failure}"
            await context.abort(grpc.StatusCode.INTERNAL, text)
        assert model is not None
        model.is_loaded = True
        return service_pb2.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:
        if request.model_name in self.models:
            self.models[request.model_name].is_loaded = False
        return service_pb2.RepositoryModelUnloadResponse()


def _received(message: Any) -> ReceivedRequest:
    contents = zip(message.inputs, message.raw_input_contents, strict=True)
    return ReceivedRequest(
        model=message.model_name,
        request_id=message.id,
        version=message.model_version,
        inputs={tensor.name: (tuple(tensor.shape), raw) for tensor, raw in contents},
        outputs=[output.name for output in message.outputs],
    )


def _adapter_problem(model: FakeModel, request: ReceivedRequest) -> str | None:
    """As peftCacheManager.cpp: weights come with an adapter's first request, and may be evicted."""
    if "lora_task_id" not in request.inputs:
        return None
    (task_id,) = struct.unpack("<Q", request.inputs["lora_task_id"][1])
    if "lora_weights" in request.inputs and "lora_config" in request.inputs:
        model.adapters = [*model.adapters, task_id][-model.max_adapters :]
    if task_id not in model.adapters:
        return f"LoRA task {task_id} not found in cache. Please send LoRA weights with request"
    return None


def _plan(model: FakeModel, request: ReceivedRequest) -> Iterable[tuple[list[int], int]]:
    """The responses: (token ids, finish reason or 0). EOS is an empty last one."""
    max_new_tokens = request.integer("request_output_len")
    room = min(max_new_tokens, model.max_seq_len - len(request.integers("input_ids")))
    token_ids = model.token_ids
    is_cut = token_ids is None or len(token_ids) >= room
    all_ids = (token_ids or [100 + i % 800 for i in range(room)])[:room]
    step = model.tokens_per_response
    parts = [all_ids[start : start + step] for start in range(0, len(all_ids), step)]
    for part in parts[:-1]:
        yield part, 0
    if is_cut:
        yield (parts[-1] if parts else []), 2
    else:
        yield from [(parts[-1], 0)] if parts else []
        yield [], 1


_Outputs = dict[str, tuple[tuple[int, ...], bytes]]


def _outputs(request: ReceivedRequest, token_ids: list[int], log_probs: list[float]) -> _Outputs:
    num_tokens = len(token_ids)
    outputs: _Outputs = {
        "output_ids": ((1, 1, num_tokens), struct.pack(f"<{num_tokens}i", *token_ids)),
        "sequence_length": ((1, 1), struct.pack("<i", num_tokens)),
    }
    if request.is_set("return_log_probs"):
        raw = struct.pack(f"<{len(log_probs)}f", *log_probs)
        outputs["output_log_probs"] = ((1, 1, len(log_probs)), raw)
    if num_top := request.integer("num_top_log_probs"):
        shape = (1, num_tokens, num_top)
        pairs = [(token_id + i, -float(i)) for token_id in token_ids for i in range(num_top)]
        ids, values = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        outputs["top_log_prob_ids"] = (shape, struct.pack(f"<{len(ids)}i", *ids))
        outputs["top_log_probs"] = (shape, struct.pack(f"<{len(values)}f", *values))
    return outputs


def _response(request: ReceivedRequest, outputs: _Outputs, *, is_final: bool) -> Any:
    message = service_pb2.ModelStreamInferResponse()
    response = message.infer_response
    response.model_name, response.model_version = request.model, "1"
    response.id = request.request_id
    response.parameters["triton_final_response"].bool_param = is_final
    datatypes = {tensor.name: tensor.datatype for tensor in tensors.OUTPUTS}
    for name, (shape, raw) in outputs.items():
        if request.outputs and name not in request.outputs:
            continue
        response.outputs.add(name=name, datatype=datatypes[name], shape=shape)
        response.raw_output_contents.append(raw)
    return message


def _failure(request_id: str, text: str) -> Any:
    message = service_pb2.ModelStreamInferResponse(error_message=text)
    message.infer_response.id = request_id
    return message
