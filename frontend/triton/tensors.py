"""The tensors that the frontend sends and reads: names, datatypes, shapes. The one such place.

Encodes a GenerationRequest as a ModelInferRequest; `responses.py` decodes the answers. Only what
differs from neutral is sent. Shapes have the request batch axis, always 1, first.
"""

from __future__ import annotations

import secrets
import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tritonclient.grpc import service_pb2

from frontend.errors import InvalidParameter
from frontend.triton.adapters import AdapterWeights
from frontend.types import GenerationRequest, LoadedModel, LoraAdapter, SamplingParams


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the contract; `param`: the request field that it comes from."""

    name: str
    datatype: str
    param: str = ""


INPUT_IDS = Tensor("input_ids", "INT32", "prompt")  # [1, n]
INPUT_LENGTHS = Tensor("input_lengths", "INT32", "prompt")  # [1, 1], like all below without a shape
REQUEST_OUTPUT_LEN = Tensor("request_output_len", "INT32", "max_tokens")
DRAFT_INPUT_IDS = Tensor("draft_input_ids", "INT32", "prompt")  # [1, n]
STOP = Tensor("stop", "BOOL")
STREAMING = Tensor("streaming", "BOOL", "stream")
END_ID = Tensor("end_id", "INT32", "ignore_eos")
NUM_RETURN_SEQUENCES = Tensor("num_return_sequences", "INT32", "n")
TEMPERATURE = Tensor("temperature", "FP32", "temperature")
RUNTIME_TOP_K = Tensor("runtime_top_k", "INT32", "top_k")
RUNTIME_TOP_P = Tensor("runtime_top_p", "FP32", "top_p")
MIN_P = Tensor("min_p", "FP32", "min_p")
REPETITION_PENALTY = Tensor("repetition_penalty", "FP32", "repetition_penalty")
PRESENCE_PENALTY = Tensor("presence_penalty", "FP32", "presence_penalty")
FREQUENCY_PENALTY = Tensor("frequency_penalty", "FP32", "frequency_penalty")
SEED = Tensor("seed", "UINT64", "seed")
MIN_TOKENS = Tensor("min_tokens", "INT32", "min_tokens")
EMBEDDING_BIAS = Tensor("embedding_bias", "FP32", "logit_bias")  # [1, vocab_size]
STOP_WORDS_LIST = Tensor("stop_words_list", "INT32", "stop_token_ids")  # [1, 2, n]
BAD_WORDS_LIST = Tensor("bad_words_list", "INT32", "bad_words")  # [1, 2, n]
RETURN_LOG_PROBS = Tensor("return_log_probs", "BOOL", "logprobs")
NUM_TOP_LOG_PROBS = Tensor("num_top_log_probs", "INT32", "top_logprobs")
RETURN_PROMPT_LOG_PROBS = Tensor("return_prompt_log_probs", "BOOL", "logprobs")
CACHE_SALT = Tensor("cache_salt", "UINT64", "cache_salt")
PRIORITY = Tensor("priority", "INT32", "priority")
LORA_TASK_ID = Tensor("lora_task_id", "UINT64", "model")
LORA_WEIGHTS = Tensor("lora_weights", "FP16", "model")  # [1, rows, width]
LORA_CONFIG = Tensor("lora_config", "INT32", "model")  # [1, rows, 3]: module, layer, rank
GUIDE_TYPE = Tensor("guided_decoding_guide_type", "BYTES", "response_format")
GUIDE = Tensor("guided_decoding_guide", "BYTES", "response_format")

INPUTS = (
    INPUT_IDS,
    INPUT_LENGTHS,
    REQUEST_OUTPUT_LEN,
    DRAFT_INPUT_IDS,
    STOP,
    STREAMING,
    END_ID,
    NUM_RETURN_SEQUENCES,
    TEMPERATURE,
    RUNTIME_TOP_K,
    RUNTIME_TOP_P,
    MIN_P,
    REPETITION_PENALTY,
    PRESENCE_PENALTY,
    FREQUENCY_PENALTY,
    SEED,
    MIN_TOKENS,
    EMBEDDING_BIAS,
    STOP_WORDS_LIST,
    BAD_WORDS_LIST,
    RETURN_LOG_PROBS,
    NUM_TOP_LOG_PROBS,
    RETURN_PROMPT_LOG_PROBS,
    CACHE_SALT,
    PRIORITY,
    LORA_TASK_ID,
    LORA_WEIGHTS,
    LORA_CONFIG,
    GUIDE_TYPE,
    GUIDE,
)

OUTPUT_IDS = Tensor("output_ids", "INT32")  # [1, 1, n], the new tokens
SEQUENCE_LENGTH = Tensor("sequence_length", "INT32")  # [1, 1], how many of them count
SEQUENCE_INDEX = Tensor("sequence_index", "INT32")  # [1, 1], with several sequences only
OUTPUT_LOG_PROBS = Tensor("output_log_probs", "FP32")  # [1, 1, m], from the first generated token
FINISH_REASON = Tensor("finish_reason", "INT32")  # [1, 1], with a sequence's last response; ours
TOP_LOG_PROB_IDS = Tensor("top_log_prob_ids", "INT32")  # [1, n, k], of the new tokens; ours
TOP_LOG_PROBS = Tensor("top_log_probs", "FP32")  # [1, n, k]; ours
NUM_CACHED_TOKENS = Tensor("num_cached_tokens", "INT32")  # [1, 1], with the first response; ours
# of the prompt's own tokens, with the first response of the first sequence; ours
PROMPT_LOG_PROBS = Tensor("prompt_log_probs", "FP32")  # [1, length], the first 0
PROMPT_TOP_LOG_PROB_IDS = Tensor("prompt_top_log_prob_ids", "INT32")  # [1, length - 1, k]
PROMPT_TOP_LOG_PROBS = Tensor("prompt_top_log_probs", "FP32")  # [1, length - 1, k]

OUTPUTS = (
    OUTPUT_IDS,
    SEQUENCE_LENGTH,
    SEQUENCE_INDEX,
    OUTPUT_LOG_PROBS,
    FINISH_REASON,
    TOP_LOG_PROB_IDS,
    TOP_LOG_PROBS,
    NUM_CACHED_TOKENS,
    PROMPT_LOG_PROBS,
    PROMPT_TOP_LOG_PROB_IDS,
    PROMPT_TOP_LOG_PROBS,
)

# of an embedding model, whose first axis is the row's
ROW_INPUT_IDS = Tensor("input_ids", "INT32", "input")  # [rows, longest row]
ROW_INPUT_LENGTHS = Tensor("input_lengths", "INT32", "input")  # [rows, 1]
EMBEDDINGS = Tensor("embeddings", "FP32")  # [rows, embedding_size]

_PARAMS = {tensor.name: tensor.param for tensor in INPUTS}
_SCALARS = {
    "INT32": struct.Struct("<i"),
    "UINT64": struct.Struct("<Q"),
    "FP32": struct.Struct("<f"),
}
_SCALARS["BOOL"] = struct.Struct("<?")


def param_of(tensor_name: str) -> str:
    """The request field that a tensor comes from, for error messages."""
    return _PARAMS.get(tensor_name) or tensor_name


def encode_request(
    request: GenerationRequest, model: LoadedModel, weights: AdapterWeights | None = None
) -> bytes:
    """Serialize a ModelInferRequest for ModelStreamInfer.

    Args:
        weights: of the request's adapter, where the engine has to be sent them.

    Raises:
        InvalidParameter: the model has no tensor for a parameter; `param` names the field.
    """
    writer = _RequestWriter(request, model)
    writer.integers(INPUT_IDS, request.prompt_token_ids)
    writer.scalar(INPUT_LENGTHS, len(request.prompt_token_ids))
    writer.scalar(REQUEST_OUTPUT_LEN, request.max_new_tokens)
    if request.draft_token_ids:
        writer.integers(DRAFT_INPUT_IDS, request.draft_token_ids)
    writer.scalar(STREAMING, True)
    if request.end_id is not None:
        writer.scalar(END_ID, request.end_id)
    if request.num_sequences != 1:
        writer.scalar(NUM_RETURN_SEQUENCES, request.num_sequences)
    if request.stop_token_ids:
        writer.words(STOP_WORDS_LIST, [(token_id,) for token_id in request.stop_token_ids])
    if request.returns_prompt_log_probs:
        writer.scalar(RETURN_PROMPT_LOG_PROBS, True)
    if request.adapter is not None:
        _write_adapter(writer, request.adapter, weights)
    if (salt := _cache_salt(request, model)) is not None:
        writer.scalar(CACHE_SALT, salt)
    if request.priority:
        writer.scalar(PRIORITY, request.priority)
    _write_sampling(writer, request.sampling)
    _write_constraints(writer, request.sampling, model.limits.vocab_size)
    for tensor in _wanted_outputs(request, model):
        writer.message.outputs.add(name=tensor.name)
    return bytes(writer.message.SerializeToString())


def _write_adapter(
    writer: _RequestWriter, adapter: LoraAdapter, weights: AdapterWeights | None
) -> None:
    writer.scalar(LORA_TASK_ID, adapter.task_id)
    if weights is not None:
        writer.raw(LORA_WEIGHTS, (1, *weights.shape), weights.weights)
        writer.raw(LORA_CONFIG, (1, weights.shape[0], 3), weights.config)


def _cache_salt(request: GenerationRequest, model: LoadedModel) -> int | None:
    """What keeps cached beginnings apart: of other salts, and of other adapters.

    TensorRT-LLM's engines have no such tensor; they keep adapters apart by their task ids.
    """
    if request.adapter is None or CACHE_SALT.name not in model.inputs:
        return request.cache_salt
    return (request.cache_salt or 0) ^ request.adapter.task_id


def encode_stop(request: GenerationRequest) -> bytes:
    """Serialize the request that ends another one by its id.

    The tensors that Triton requires are there as the reference client sends them:
    tensorrtllm_backend, inflight_batcher_llm/client/inflight_batcher_llm_client.py.
    """
    message = service_pb2.ModelInferRequest(model_name=request.model, id=request.request_id)
    for tensor, value in ((INPUT_IDS, 0), (INPUT_LENGTHS, 0), (REQUEST_OUTPUT_LEN, 0), (STOP, 1)):
        message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=(1, 1))
        message.raw_input_contents.append(_SCALARS[tensor.datatype].pack(value))
    return bytes(message.SerializeToString())


def is_greedy(sampling: SamplingParams) -> bool:
    return sampling.temperature == 0 or sampling.top_k == 1 or sampling.top_p == 0


class _RequestWriter:
    """Adds tensors to a ModelInferRequest, if the model has them."""

    def __init__(self, request: GenerationRequest, model: LoadedModel) -> None:
        self.message = service_pb2.ModelInferRequest(
            model_name=request.model, id=request.request_id
        )
        if request.prepared_for is not None:
            # Triton refuses it when it serves another load by now: its tokens may differ.
            self.message.model_version = str(request.prepared_for.number)
        self._model = model

    def has(self, tensor: Tensor) -> bool:
        return tensor.name in self._model.inputs

    def scalar(self, tensor: Tensor, value: float) -> None:
        self._add(tensor, (1, 1), _SCALARS[tensor.datatype].pack(value))

    def integers(self, tensor: Tensor, values: Sequence[int]) -> None:
        self._add(tensor, (1, len(values)), array("i", values).tobytes())

    def text(self, tensor: Tensor, value: str) -> None:
        encoded = value.encode()
        self._add(tensor, (1, 1), struct.pack("<I", len(encoded)) + encoded)

    def words(self, tensor: Tensor, words: Iterable[Sequence[int]]) -> None:
        """Row 0: the words' token ids, one after the other; row 1: their end offsets, then -1."""
        token_ids: list[int] = []
        ends: list[int] = []
        for word in words:
            token_ids += word
            ends.append(len(token_ids))
        ends += [-1] * (len(token_ids) - len(ends))
        self._add(tensor, (1, 2, len(token_ids)), array("i", token_ids + ends).tobytes())

    def floats(self, tensor: Tensor, values: array[float]) -> None:
        self._add(tensor, (1, len(values)), values.tobytes())

    def raw(self, tensor: Tensor, shape: Sequence[int], content: bytes) -> None:
        self._add(tensor, shape, content)

    def _add(self, tensor: Tensor, shape: Sequence[int], raw: bytes) -> None:
        if not self.has(tensor):
            reason = f"no tensor {tensor.name}"
            raise InvalidParameter(tensor.param, "unsupported", reason=reason)
        self.message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=shape)
        self.message.raw_input_contents.append(raw)


def _write_sampling(writer: _RequestWriter, sampling: SamplingParams) -> None:
    if is_greedy(sampling):
        # Said explicitly: without any sampling parameter the C++ model gives no log-probs.
        writer.scalar(RUNTIME_TOP_K, 1)
    else:
        _write_random_sampling(writer, sampling)
    for tensor, value, neutral in (
        (REPETITION_PENALTY, sampling.repetition_penalty, 1.0),
        (PRESENCE_PENALTY, sampling.presence_penalty, 0.0),
        (FREQUENCY_PENALTY, sampling.frequency_penalty, 0.0),
    ):
        if value != neutral:
            writer.scalar(tensor, value)


def _write_random_sampling(writer: _RequestWriter, sampling: SamplingParams) -> None:
    # Sent even when neutral: with neither top_k nor top_p the engine is greedy.
    writer.scalar(RUNTIME_TOP_P, sampling.top_p)
    if sampling.seed is not None:
        writer.scalar(SEED, sampling.seed % 2**64)
    elif writer.has(SEED):
        # The engine's default seed is fixed: equal requests would get equal samples.
        writer.scalar(SEED, secrets.randbits(64))
    if sampling.temperature != 1:
        writer.scalar(TEMPERATURE, sampling.temperature)
    if sampling.top_k:
        writer.scalar(RUNTIME_TOP_K, sampling.top_k)
    if sampling.min_p:
        writer.scalar(MIN_P, sampling.min_p)


def _write_constraints(writer: _RequestWriter, sampling: SamplingParams, vocab_size: int) -> None:
    if sampling.min_tokens:
        writer.scalar(MIN_TOKENS, sampling.min_tokens)
    if sampling.logit_bias:
        writer.floats(EMBEDDING_BIAS, _bias_vector(sampling, vocab_size))
    if sampling.bad_words:
        writer.words(BAD_WORDS_LIST, sampling.bad_words)
    if sampling.num_log_probs is not None:
        writer.scalar(RETURN_LOG_PROBS, True)
        if sampling.num_log_probs:
            writer.scalar(NUM_TOP_LOG_PROBS, sampling.num_log_probs)
    if sampling.guide is not None:
        writer.text(GUIDE_TYPE, sampling.guide.type)
        writer.text(GUIDE, sampling.guide.text)


def _bias_vector(sampling: SamplingParams, vocab_size: int) -> array[float]:
    biases = array("f", bytes(4 * vocab_size))
    for token_id, bias in sampling.logit_bias.items():
        if not 0 <= token_id < vocab_size:
            raise InvalidParameter(
                "logit_bias", "out_of_range", minimum=0, maximum=vocab_size - 1, value=token_id
            )
        biases[token_id] = bias
    return biases


def _wanted_outputs(request: GenerationRequest, model: LoadedModel) -> list[Tensor]:
    """List what is needed of what the model has; each one more costs in every response."""
    wanted = [OUTPUT_IDS, SEQUENCE_LENGTH, FINISH_REASON, NUM_CACHED_TOKENS]
    if request.num_sequences != 1:
        wanted.append(SEQUENCE_INDEX)
    if request.sampling.num_log_probs is not None:
        wanted.append(OUTPUT_LOG_PROBS)
        if request.sampling.num_log_probs:
            wanted += [TOP_LOG_PROB_IDS, TOP_LOG_PROBS]
    if request.returns_prompt_log_probs:
        wanted.append(PROMPT_LOG_PROBS)
        if request.sampling.num_log_probs:
            wanted += [PROMPT_TOP_LOG_PROB_IDS, PROMPT_TOP_LOG_PROBS]
    return [tensor for tensor in wanted if tensor.name in model.outputs]
