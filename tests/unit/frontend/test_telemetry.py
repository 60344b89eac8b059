from __future__ import annotations

import json
import logging
import os
import subprocess

import pytest

from frontend.telemetry.logs import FieldFormatter, JsonFormatter
from frontend.telemetry.memory import human_size, machine_bytes, model_bytes, serving_bytes
from frontend.telemetry.metrics import Metrics
from frontend.telemetry.requests import RequestRecord, current_request


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0B"), (999, "999B"), (1000, "1KB"), (1500, "1.5KB"), (4_200_000_000, "4.2GB"),
        (8_000_000_000, "8GB"), (12_345_678, "12.3MB"), (2_000_000_000_000, "2TB"),
        (5_000_000_000_000_000, "5000TB"),
    ],
)  # fmt: skip
def test_sizes_as_people_write_them(num_bytes: int, text: str) -> None:
    assert human_size(num_bytes) == text


def test_memory_counts_the_processes_below() -> None:
    alone = serving_bytes(os.getpid())
    with subprocess.Popen(["sleep", "10"]) as child:
        assert alone < serving_bytes(os.getpid()) < machine_bytes()
        child.kill()


def test_a_model_whose_process_is_not_here_has_no_memory() -> None:
    assert model_bytes(os.getpid(), "m") is None


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": message, "levelname": "INFO", "name": "x", **fields})
    return made


def test_fields_stand_behind_the_message() -> None:
    formatter = FieldFormatter("%(levelname)s %(message)s")
    assert formatter.format(record("done", model="m", number=1)) == "INFO done model='m' number=1"
    assert formatter.format(record("done")) == "INFO done"


def test_a_line_as_json_has_all_its_fields() -> None:
    failure = ValueError("no")
    made = record("done", model="模型", odd={1}, exc_info=(ValueError, failure, None))
    line = json.loads(JsonFormatter().format(made))
    assert line.pop("time").endswith("+00:00")
    assert line.pop("trace") == "ValueError: no"
    assert line == {
        "level": "info", "logger": "x", "message": "done", "model": "模型", "odd": "{1}",
    }  # fmt: skip


@pytest.mark.parametrize("formatter", [FieldFormatter("%(message)s"), JsonFormatter()])
def test_a_line_that_is_written_for_a_request_has_its_id(formatter: logging.Formatter) -> None:
    token = current_request.set(RequestRecord(request_id="r-1", method="GET", path="/"))
    try:
        assert "r-1" in formatter.format(record("retrying"))
        assert "r-1" not in formatter.format(record("done", request_id="r-2"))
    finally:
        current_request.reset(token)
    assert "r-1" not in formatter.format(record("retrying"))


def test_a_request_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    served = RequestRecord(request_id="r-1", method="GET", path="/")
    served.log()
    served.log()
    assert len(caplog.records) == 1


def test_a_field_cannot_forge_a_line() -> None:
    line = FieldFormatter("%(message)s").format(record("done", path="/a\nERROR forged"))
    assert "\n" not in line


def test_a_trace_stands_behind_the_fields() -> None:
    try:
        raise ValueError("boom")
    except ValueError as exc:
        made = record("failed", path="/p", exc_info=(type(exc), exc, exc.__traceback__))
    first, *rest = FieldFormatter("%(message)s").format(made).splitlines()
    assert first == "failed path='/p'"
    assert rest[-1] == "ValueError: boom"


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    found = metrics._registry.get_sample_value(name, labels)
    return found


def test_a_generation_is_counted_once_in_every_family() -> None:
    metrics = Metrics()
    metrics.count(
        "m", "length", num_prompt_tokens=3, num_tokens=5, duration_s=3.0, first_token_s=1.0
    )
    assert value(metrics, "inflight_requests_total", model="m", outcome="length") == 1
    assert value(metrics, "inflight_prompt_tokens_total", model="m") == 3
    assert value(metrics, "inflight_completion_tokens_total", model="m") == 5
    assert value(metrics, "model_inference_seconds_sum", model="m") == 3
    assert value(metrics, "inflight_time_to_first_token_seconds_sum", model="m") == 1
    assert value(metrics, "inflight_time_per_output_token_seconds_sum", model="m") == 0.5


def test_a_generation_without_a_token_has_no_first_token_time() -> None:
    metrics = Metrics()
    metrics.count(
        "m", "cancelled", num_prompt_tokens=3, num_tokens=0, duration_s=3.0, first_token_s=None
    )
    assert value(metrics, "inflight_time_to_first_token_seconds_count", model="m") is None
    assert value(metrics, "inflight_time_per_output_token_seconds_count", model="m") is None


def test_connections_in_work_are_counted_also_when_they_fail() -> None:
    metrics = Metrics()

    def fail() -> None:
        with metrics.connection():
            assert metrics.num_active_connections() == 2
            raise RuntimeError

    with metrics.connection():
        assert metrics.num_active_connections() == 1
        with pytest.raises(RuntimeError):
            fail()
    assert metrics.num_active_connections() == 0


def test_the_promised_families_are_there_before_the_first_request() -> None:
    text = Metrics().exposition().decode()
    assert "# TYPE model_inference_seconds histogram" in text
    assert "# TYPE active_connections gauge" in text
