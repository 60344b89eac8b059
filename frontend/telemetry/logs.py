"""Logs: one line an event on standard error, its fields behind the message or in a JSON object.

Every line that is written while a request is served has its id.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import orjson

from frontend.telemetry.requests import current_request

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """What a line has beyond the standard: its `extra`, and the id of the request in work."""
    fields = {k: v for k, v in record.__dict__.items() if k not in _STANDARD}
    request = current_request.get()
    if request is not None:
        fields.setdefault("request_id", request.request_id)
    return fields


class FieldFormatter(logging.Formatter):
    """`time level logger message key=value ...`"""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        fields = fields_of(record)
        if not fields:
            return line
        first, newline, rest = line.partition("\n")  # a trace stays behind the fields
        return first + "".join(f" {k}={v!r}" for k, v in fields.items()) + newline + rest


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=repr).decode()


def configure_logging(level: str, log_format: str = "text") -> None:
    """
    Args:
        log_format: "text" or "json".
    """
    handler = logging.StreamHandler()
    text = FieldFormatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    handler.setFormatter(JsonFormatter() if log_format == "json" else text)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("sanic.root", "sanic.server", "httpx", "alembic"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))
