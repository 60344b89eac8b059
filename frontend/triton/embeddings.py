"""Rows of token ids -> vectors, over an embedding model's ModelInfer."""

from __future__ import annotations

import asyncio
import sys
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

from tritonclient.grpc import service_pb2

from frontend.errors import GenerationFailed, InvalidParameter, ModelChanged, ModelNotLoaded
from frontend.triton import tensors
from frontend.triton.rpc import TritonRpc
from frontend.types import LoadedModel, ServedVersion

# Triton computes what waits together, up to 64 rows. Half of it a call, and a few calls at once,
# keep it busy and leave the requests of others a place in its queue.
MAX_ROWS_PER_CALL = 32
MAX_CALLS_AT_ONCE = 4


async def embed(
    rpc: TritonRpc,
    model: LoadedModel,
    rows: Sequence[Sequence[int]],
    *,
    prepared_for: ServedVersion | None = None,
) -> list[array[float]]:
    """Return one vector (float32, length 1) for each row, in their order.

    Raises:
        ModelChanged: what Triton serves now is not what the rows were `prepared_for`.
        InvalidParameter: the model makes no embeddings.
        ServingError: the model refused a row, has failed, or Triton cannot be reached.
    """
    if model.embedding_size is None or tensors.EMBEDDINGS.name not in model.outputs:
        raise InvalidParameter("model", "makes_no_embeddings", model=model.name)
    if prepared_for not in (None, model.served):
        raise ModelChanged(model=model.name)
    vectors: list[array[float]] = [array("f")] * len(rows)
    places = asyncio.Semaphore(MAX_CALLS_AT_ONCE)

    async def call(indices: list[int]) -> None:
        async with places:
            message = encode_rows(model.name, [rows[i] for i in indices])
            if prepared_for is not None:
                message.model_version = str(prepared_for.number)
            answer = await _infer(rpc, message)
        found = decode_vectors(answer, len(indices), model.embedding_size or 0)
        for index, vector in zip(indices, found, strict=True):
            vectors[index] = vector

    calls = [asyncio.create_task(call(indices)) for indices in _calls(rows)]
    try:
        await asyncio.gather(*calls)
    finally:
        for one in calls:  # of one that failed, or whose client has left
            one.cancel()
    return vectors


async def _infer(rpc: TritonRpc, message: Any) -> Any:
    try:
        return await rpc.infer(message)
    except ModelNotLoaded as exc:
        if message.model_version:
            raise ModelChanged(model=message.model_name) from exc
        raise


def encode_rows(model: str, rows: Sequence[Sequence[int]]) -> Any:
    """Make a service_pb2.ModelInferRequest; shorter rows are padded with zeros."""
    width = max(map(len, rows))
    token_ids, lengths = array("i"), array("i")
    for row in rows:
        token_ids.extend(row)
        token_ids.frombytes(bytes(token_ids.itemsize * (width - len(row))))
        lengths.append(len(row))
    message = service_pb2.ModelInferRequest(model_name=model)
    for tensor, shape, values in (
        (tensors.ROW_INPUT_IDS, (len(rows), width), token_ids),
        (tensors.ROW_INPUT_LENGTHS, (len(rows), 1), lengths),
    ):
        message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=shape)
        message.raw_input_contents.append(values.tobytes())
    message.outputs.add(name=tensors.EMBEDDINGS.name)
    return message


def decode_vectors(answer: Any, num_rows: int, embedding_size: int) -> list[array[float]]:
    """Read the vectors out of a service_pb2.ModelInferResponse.

    Raises:
        GenerationFailed: they are not what was asked for.
    """
    shapes = [(output.name, *output.shape) for output in answer.outputs]
    if shapes != [(tensors.EMBEDDINGS.name, num_rows, embedding_size)]:
        raise GenerationFailed(reason=f"outputs {shapes} for {num_rows} rows")
    raw = answer.raw_output_contents[0]
    row_bytes = 4 * embedding_size
    vectors = []
    for start in range(0, len(raw), row_bytes):
        vector = array("f", raw[start : start + row_bytes])
        if sys.byteorder == "big":
            vector.byteswap()
        vectors.append(vector)
    return vectors


def _calls(rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Indices of the rows of each call: of about the same length, so that little is padding."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    for start in range(0, len(order), MAX_ROWS_PER_CALL):
        yield order[start : start + MAX_ROWS_PER_CALL]
