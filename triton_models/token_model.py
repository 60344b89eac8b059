"""What the `1/model.py` of every kind that generates tokens has in common: requests, metrics, end.

Can only be imported inside Triton's Python stub, which gives `triton_python_backend_utils`.
"""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from typing import Any

import triton_python_backend_utils as pb_utils

from triton_models.metrics import GAUGES, Measured, gauge_values
from triton_models.service import Service
from triton_models.triton_channel import TritonChannel


class MetricsReporter:
    """Publishes an engine's figures as gauges of Triton's metrics endpoint, when they change."""

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

    def start(self, engine: Measured) -> None:
        """Reports until `close`."""
        self._thread = threading.Thread(target=self._run, args=(engine,), name="metrics")
        self._thread.daemon = True
        self._thread.start()

    def close(self) -> None:
        """Stops reporting."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, engine: Measured) -> None:
        while not self._closing.wait(self._period_s):
            for key, value in gauge_values(engine.stats()).items():
                if self._last.get(key) != value:
                    self._gauges[key].set(value)
                    self._last[key] = value


class TokenModel(ABC):
    """What Triton calls. A kind says how its engine is made of its parameters."""

    @abstractmethod
    def serve(self, parameters: dict[str, str]) -> tuple[Service, Measured, float]:
        """The service in front of the engine, the engine, and seconds between two reports of its
        figures."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the artefact that the parameters name."""
        config = json.loads(args["model_config"])
        parameters = {k: v["string_value"] for k, v in config["parameters"].items()}
        self._service, engine, period_s = self.serve(parameters)
        labels = {"model": args["model_name"], "version": args["model_version"]}
        self._metrics = MetricsReporter(labels, period_s)
        self._metrics.start(engine)

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
