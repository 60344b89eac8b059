"""Runs by alembic, on the connection and in the transaction that `Database.open` gives it."""

from __future__ import annotations

from alembic import context

from frontend.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
context.run_migrations()
