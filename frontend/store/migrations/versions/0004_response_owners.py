"""Whose a stored response is, and of which model. Those of before are the default tenant's."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    tenant = sa.Column("tenant", sa.String, nullable=False, server_default="default")
    model = sa.Column("model", sa.String, nullable=False, server_default="")
    op.add_column("responses", tenant)
    op.add_column("responses", model)
    responses = sa.table("responses", sa.column("body", sa.JSON), sa.column("model", sa.String))
    named = sa.func.coalesce(responses.c.body["model"].as_string(), "")
    op.execute(responses.update().values(model=named))


def downgrade() -> None:
    op.drop_column("responses", "model")
    op.drop_column("responses", "tenant")
