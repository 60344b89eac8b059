"""Responses, their items and their stream events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _response_id() -> sa.Column[str]:
    key = sa.ForeignKey("responses.id", ondelete="CASCADE")
    return sa.Column("response_id", sa.String, key, primary_key=True)


def upgrade() -> None:
    op.create_table(
        "responses",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("created_at", sa.Float, nullable=False, index=True),
        sa.Column("previous_response_id", sa.String),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("is_background", sa.Boolean, nullable=False),
        sa.Column("has_events", sa.Boolean, nullable=False),
        sa.Column("lease_until", sa.Float, index=True),
        sa.Column("body", sa.JSON, nullable=False),
    )
    op.create_table(
        "response_items",
        _response_id(),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("item_id", sa.String, nullable=False, index=True),
        sa.Column("is_output", sa.Boolean, nullable=False),
        sa.Column("item", sa.JSON, nullable=False),
    )
    op.create_table(
        "response_events",
        _response_id(),
        sa.Column("sequence_number", sa.Integer, primary_key=True),
        sa.Column("event", sa.JSON, nullable=False),
    )


def downgrade() -> None:
    for table in ("response_events", "response_items", "responses"):
        op.drop_table(table)
