"""The tables. What changes them is a new file in migrations/versions, beside the change here."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

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
    # Of a worker of the version before, which stores on while others are replaced: the defaults.
    Column("tenant", String, nullable=False, server_default="default"),
    Column("model", String, nullable=False, server_default=""),  # who may use it may see this
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

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("tenant", String, nullable=False, index=True),
    Column("scopes", JSON, nullable=False),
    Column("models", JSON, nullable=False),  # globs
    Column("limits", JSON),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
    Column("last_used_at", Float),  # coarse
    Column("changed_in", BigInteger, nullable=False, index=True),  # the number of its last change
)

# A key that is rotated has two for a while.
api_key_secrets = Table(
    "api_key_secrets",
    metadata,
    Column("hash", LargeBinary, primary_key=True),  # SHA-256
    Column("key_id", String, ForeignKey("api_keys.id"), nullable=False, index=True),
    Column("shown", String, nullable=False),  # its first characters
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
)

# One row. Its number grows in every transaction that changes keys, which lock it until they end:
# who has seen a number has seen all changes up to it.
api_key_changes = Table(
    "api_key_changes",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
)


def _amounts() -> list[Column[int]]:
    names = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens", "cost")
    return [Column(name, BigInteger, nullable=False) for name in names]


# One row a request. Costs are billionths of the currency.
usage_records = Table(
    "usage_records",
    metadata,
    Column("id", String, primary_key=True),
    Column("at", Float, nullable=False, index=True),
    Column("request_id", String, nullable=False),
    Column("tenant", String, nullable=False),
    Column("principal", String, nullable=False),
    Column("model", String, nullable=False),
    Column("outcome", String, nullable=False),
    Column("is_batch", Boolean, nullable=False),
    *_amounts(),
)

# What the records of a day (UTC) sum up to. They stay when the records go.
usage_days = Table(
    "usage_days",
    metadata,
    Column("day", Date, primary_key=True),
    Column("tenant", String, primary_key=True),
    Column("principal", String, primary_key=True),
    Column("model", String, primary_key=True),
    Column("outcome", String, primary_key=True),
    Column("is_batch", Boolean, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    *_amounts(),
    # All whose key it is may ask for their own sums, of any days: others' rows are not read then.
    Index("ix_usage_days_principal_day", "principal", "day"),
)

# The same of a month for budgets, which are read each second: one row a tenant.
usage_months = Table(
    "usage_months",
    metadata,
    Column("month", Date, primary_key=True),  # its first day
    Column("tenant", String, primary_key=True),
    Column("tokens", BigInteger, nullable=False),  # of prompts and answers
    Column("cost", BigInteger, nullable=False),
)
