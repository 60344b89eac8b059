"""The tables. What changes them is a new file in migrations/versions, beside the change here."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, ForeignKey, Integer, MetaData, String, Table

metadata = MetaData()


def _response_id() -> Column[str]:
    return Column(
        "response_id", String, ForeignKey("responses.id", ondelete="CASCADE"), primary_key=True
    )


# Times are Unix seconds.
responses = Table(
    "responses",
    metadata,
    Column("id", String, primary_key=True),
    Column("created_at", Float, nullable=False, index=True),
    Column("previous_response_id", String),
    Column("status", String, nullable=False),
    Column("is_background", Boolean, nullable=False),
    Column("has_events", Boolean, nullable=False),  # its stream can be read again
    # Until when its worker is taken to be alive; null when nothing runs.
    Column("lease_until", Float, index=True),
    Column("body", JSON, nullable=False),  # the response as it is shown, without its output
)

response_items = Table(
    "response_items",
    metadata,
    _response_id(),
    Column("position", Integer, primary_key=True),
    Column("item_id", String, nullable=False, index=True),  # clients send items back with their ids
    Column("is_output", Boolean, nullable=False),
    Column("item", JSON, nullable=False),
)

response_events = Table(
    "response_events",
    metadata,
    _response_id(),
    Column("sequence_number", Integer, primary_key=True),
    Column("event", JSON, nullable=False),
)
