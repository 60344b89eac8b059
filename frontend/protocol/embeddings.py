"""The wire shapes of /v1/embeddings.

Source: OpenAI's API description 2.3.0, CreateEmbeddingRequest and its answer.
"""

from __future__ import annotations

import base64
import math
import sys
from array import array
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from frontend.protocol.inputs import Input, Inputs, read_inputs
from frontend.protocol.limits import between, check_limits, one_of
from frontend.protocol.sampling import MAX_INT32

MAX_INPUTS = 2048  # OpenAI's limit


class EmbeddingRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    input: Inputs
    model: str | None = None
    dimensions: Annotated[int, between(1, MAX_INT32)] | None = None
    encoding_format: Annotated[str, one_of("float", "base64")] = "float"
    user: str | None = None  # an end user's name for the caller's own records; changes nothing here

    def check(self) -> None:
        """Refuse what no model can do.

        Raises:
            InvalidParameter: names the field.
        """
        check_limits(self)
        self.inputs()

    def inputs(self) -> list[Input]:
        """The texts and token lists, one for each vector.

        Raises:
            InvalidParameter: one is empty, they are mixed, or too many.
        """
        return read_inputs("input", self.input, maximum=MAX_INPUTS)


def encode_embeddings(
    vectors: Sequence[array[float]], *, model: str, num_tokens: int, request: EmbeddingRequest
) -> dict[str, Any]:
    """The answer to a request."""
    is_base64 = request.encoding_format == "base64"
    data = []
    for index, vector in enumerate(vectors):
        values = shorten(vector, request.dimensions)
        embedding = _base64(values) if is_base64 else values.tolist()
        data.append({"object": "embedding", "index": index, "embedding": embedding})
    usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def shorten(vector: array[float], dimensions: int | None) -> array[float]:
    """The first values, scaled to length 1 again."""
    if dimensions is None or dimensions == len(vector):
        return vector
    head = vector[:dimensions]
    length = math.sqrt(math.fsum(value * value for value in head))
    return array("f", [value / length for value in head]) if length else head


def _base64(vector: array[float]) -> str:
    """Little-endian float32, as OpenAI's clients read it."""
    if sys.byteorder == "big":
        vector = vector[:]
        vector.byteswap()
    return base64.b64encode(vector.tobytes()).decode()
