"""What each request has used, and its sums by day and by month."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def _amounts() -> list[sa.Column[int]]:
    names = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens", "cost")
    return [sa.Column(name, sa.BigInteger, nullable=False) for name in names]


def upgrade() -> None:
    op.create_table(
        "usage_records",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("at", sa.Float, nullable=False, index=True),
        sa.Column("request_id", sa.String, nullable=False),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("principal", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("outcome", sa.String, nullable=False),
        sa.Column("is_batch", sa.Boolean, nullable=False),
        *_amounts(),
    )
    op.create_table(
        "usage_days",
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("principal", sa.String, primary_key=True),
        sa.Column("model", sa.String, primary_key=True),
        sa.Column("outcome", sa.String, primary_key=True),
        sa.Column("is_batch", sa.Boolean, primary_key=True),
        sa.Column("requests", sa.BigInteger, nullable=False),
        *_amounts(),
    )
    op.create_index("ix_usage_days_principal_day", "usage_days", ["principal", "day"])
    op.create_table(
        "usage_months",
        sa.Column("month", sa.Date, primary_key=True),
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("cost", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for table in ("usage_months", "usage_days", "usage_records"):
        op.drop_table(table)
