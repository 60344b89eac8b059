"""Triton's Python backend speaks to TensorRT-LLM's LLM API through this file.

Runs in the backend's stub inside the image of TensorRT-LLM, where the project is importable.
"""

from __future__ import annotations

from triton_models.llm_api.settings import LlmSettings, load_engine
from triton_models.metrics import Measured
from triton_models.parameters import parse_parameters
from triton_models.service import Service
from triton_models.token_model import TokenModel


class TritonPythonModel(TokenModel):
    """What Triton calls."""

    def serve(self, parameters: dict[str, str]) -> tuple[Service, Measured, float]:
        """See TokenModel."""
        settings = parse_parameters(LlmSettings, parameters)
        engine = load_engine(settings)
        service = Service(
            engine,
            None,
            settings.vocab_size,
            exclude_input_in_output=settings.exclude_input_in_output,
            cancellation_check_period_s=settings.cancellation_check_period_ms / 1000,
            supported=frozenset({"lora_task_id"}),
        )
        return service, engine, settings.stats_check_period_ms / 1000
