"""Triton's Python backend speaks to the sentence encoder through this file.

Triton's dynamic batcher hands over what waits, and the encoder computes it together.
"""

from __future__ import annotations

import json
from typing import Any

import triton_python_backend_utils as pb_utils

from triton_models.embedding.encoder import SentenceEncoder
from triton_models.embedding.service import EmbeddingService, EmbeddingSettings
from triton_models.errors import EngineError
from triton_models.parameters import parse_parameters

IR_FILE = "openvino_model.xml"


class TritonPythonModel:
    """What Triton calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the artefact that the parameters name."""
        config = json.loads(args["model_config"])
        parameters = {k: v["string_value"] for k, v in config["parameters"].items()}
        settings = parse_parameters(EmbeddingSettings, parameters)
        encoder = SentenceEncoder(
            settings.artefact_dir / IR_FILE,
            max_num_tokens=settings.max_num_tokens,
            num_threads=settings.num_threads,
        )
        self._service = EmbeddingService(encoder, settings)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answers all requests, in their order."""
        tensors = [{t.name(): t.as_numpy() for t in request.inputs()} for request in requests]
        return [_response(answer) for answer in self._service.answer(tensors)]


def _response(answer: Any) -> Any:
    if isinstance(answer, EngineError):
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(answer)))
    return pb_utils.InferenceResponse([pb_utils.Tensor("embeddings", answer)])
