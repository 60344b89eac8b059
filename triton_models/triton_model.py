"""What the `1/model.py` of the batching kinds has in common: requests, metrics and the end.

Can only be imported inside Triton's Python stub, which gives `triton_python_backend_utils`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import triton_python_backend_utils as pb_utils

from triton_models.batching.batcher import Batcher
from triton_models.batching.settings import EngineSettings, load_guides
from triton_models.metrics import GAUGES, gauge_values
from triton_models.parameters import parse_parameters
from triton_models.service import Service
from triton_models.triton_channel import TritonChannel


class MetricsReporter:
    """Publishes the batcher's figures as gauges of Triton's metrics endpoint, when they change."""

    def __init__(self, labels: dict[str, str], period_s: float) -> None:
        self._period_s = period_s
        self._last: dict[tuple[str, str], float] = {}
        self._gauges = {}
        self._families = []
        for family, (description, label, values) in GAUGES.items():
            metric_family = pb_utils.MetricFamily(
                name=family, description=description, kind=pb_utils.MetricFamily.GAUGE
            )
            self._families.append(metric_family)
            for value in values:
                self._gauges[family, value] = metric_family.Metric(labels={label: value, **labels})
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, batcher: Batcher) -> None:
        """Reports until `close`."""
        self._thread = threading.Thread(target=self._run, args=(batcher,), name="metrics")
        self._thread.daemon = True
        self._thread.start()

    def close(self) -> None:
        """Stops reporting."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, batcher: Batcher) -> None:
        while not self._closing.wait(self._period_s):
            for key, value in gauge_values(batcher.stats()).items():
                if self._last.get(key) != value:
                    self._gauges[key].set(value)
                    self._last[key] = value


class BatchingModel:
    """What Triton calls. A kind says how its settings look and how its batcher is loaded."""

    settings: ClassVar[type[EngineSettings]] = EngineSettings
    load: ClassVar[Callable[[Any], Batcher]]

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the artefact that the parameters name."""
        config = json.loads(args["model_config"])
        parameters = {k: v["string_value"] for k, v in config["parameters"].items()}
        settings = parse_parameters(self.settings, parameters)
        batcher = type(self).load(settings)
        self._service = Service(
            batcher,
            load_guides(settings),
            settings.vocab_size,
            exclude_input_in_output=settings.exclude_input_in_output,
            cancellation_check_period_s=settings.cancellation_check_period_ms / 1000,
        )
        labels = {"model": args["model_name"], "version": args["model_version"]}
        self._metrics = MetricsReporter(labels, settings.stats_check_period_ms / 1000)
        self._metrics.start(batcher)

    def execute(self, requests: list[Any]) -> None:
        """Hands the requests on; the inputs are only valid in here."""
        for request in requests:
            tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            requested = frozenset(request.requested_output_names())
            channel = TritonChannel(request.get_response_sender(), requested)
            self._service.handle(request.request_id(), tensors, channel)

    def finalize(self) -> None:
        """Ends what still runs."""
        self._service.close()
        self._metrics.close()
