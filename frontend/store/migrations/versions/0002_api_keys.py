"""API keys, their secrets, and the number that grows with every change to them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("tenant", sa.String, nullable=False, index=True),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("models", sa.JSON, nullable=False),
        sa.Column("limits", sa.JSON),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float),
        sa.Column("revoked_at", sa.Float),
        sa.Column("last_used_at", sa.Float),
        sa.Column("changed_in", sa.BigInteger, nullable=False, index=True),
    )
    op.create_table(
        "api_key_secrets",
        sa.Column("hash", sa.LargeBinary, primary_key=True),
        sa.Column("key_id", sa.String, sa.ForeignKey("api_keys.id"), nullable=False, index=True),
        sa.Column("shown", sa.String, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float),
    )
    changes = op.create_table(
        "api_key_changes",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(changes, [{"id": 1, "number": 0}])


def downgrade() -> None:
    for table in ("api_key_changes", "api_key_secrets", "api_keys"):
        op.drop_table(table)
