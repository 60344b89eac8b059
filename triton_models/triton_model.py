"""What the `1/model.py` of the batching kinds has in common.

Can only be imported inside Triton's Python stub, which gives `triton_python_backend_utils`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from triton_models.batching.batcher import Batcher
from triton_models.batching.settings import EngineSettings, load_guides
from triton_models.metrics import Measured
from triton_models.parameters import parse_parameters
from triton_models.service import Service
from triton_models.token_model import TokenModel


class BatchingModel(TokenModel):
    """What Triton calls. A kind says how its settings look and how its batcher is loaded."""

    settings: ClassVar[type[EngineSettings]] = EngineSettings
    load: ClassVar[Callable[[Any], Batcher]]

    def serve(self, parameters: dict[str, str]) -> tuple[Service, Measured, float]:
        """See TokenModel."""
        settings = parse_parameters(self.settings, parameters)
        batcher = type(self).load(settings)
        service = Service(
            batcher,
            load_guides(settings),
            settings.vocab_size,
            exclude_input_in_output=settings.exclude_input_in_output,
            cancellation_check_period_s=settings.cancellation_check_period_ms / 1000,
        )
        return service, batcher, settings.stats_check_period_ms / 1000
