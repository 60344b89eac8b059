"""One worker's connections to the database, and the migrations that it starts with.

Every worker process opens its own; SQLite's lock on the file keeps them in order, PostgreSQL's
locks on rows do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import orjson
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, event, make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from frontend.settings import SettingsError

MIGRATIONS = Path(__file__).with_name("migrations")
LOCK_TIMEOUT_S = 30.0  # how long a transaction waits for another process' one
CONNECT_TIMEOUT_S = 5.0
POSTGRES_PORT = 5432
_IS_WRITE = "is_write"
_MIGRATION_LOCK = 0x1F_11_64_7  # of PostgreSQL's advisory locks: any number that is only ours


class Database:
    """Transactions; made by `open`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._reading = engine
        if engine.dialect.name == "postgresql":
            # what several statements read is of one moment, as it is in SQLite anyway
            snapshot = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
            self._reading = engine.execution_options(**snapshot)
        self._writing = engine.execution_options(**{_IS_WRITE: True})

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect, and bring the tables up to date: one process does, the others wait for it.

        Args:
            url: sqlite:///path or postgresql://user:password@host/name.

        Raises:
            SettingsError: it cannot be reached or used; with one line that says why.
        """
        address = _with_driver(make_url(url))
        try:
            return await cls._open(address)
        # the last two: the driver cannot use what stands behind the address's ?
        except (OSError, SQLAlchemyError, CommandError, ValueError, TypeError) as exc:
            raise _failure(address, exc) from exc

    @classmethod
    @asynccontextmanager
    async def opened(cls, url: str) -> AsyncIterator[Self]:
        """`open` and `close`; for commands, to which what fails meanwhile is one line as well."""
        database = await cls.open(url)
        try:
            yield database
        except (OSError, SQLAlchemyError) as exc:
            raise _failure(make_url(url), exc) from exc
        finally:
            await database.close()

    @classmethod
    async def _open(cls, address: URL) -> Self:
        if address.get_backend_name() == "sqlite":
            _make_file(address)
        database = cls(_create_engine(address))
        try:
            async with database.write() as connection:
                await connection.run_sync(_upgrade)
        except BaseException:
            await database.close()
            raise
        return database

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees one state of the database and changes nothing."""
        async with self._reading.connect() as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that has the right to write from its beginning; commits at its end."""
        async with self._writing.begin() as connection:
            yield connection

    async def close(self) -> None:
        await self._reading.dispose()


def _with_driver(url: URL) -> URL:
    drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
    backend = {"postgres": "postgresql"}.get(url.drivername, url.get_backend_name())
    # asyncpg's name for what PostgreSQL's own programs call sslmode
    query = {"ssl" if name == "sslmode" else name: value for name, value in url.query.items()}
    return url.set(drivername=drivers[backend], query=query)


def _failure(address: URL, exc: Exception) -> SettingsError:
    return SettingsError(f"the database {_shown(address)}: {_reason(exc)}")


def _shown(address: URL) -> str:
    """Without user and password."""
    if address.host is None:
        return str(address.database)
    return f"{address.database} at {address.host}:{address.port or POSTGRES_PORT}"


def _reason(exc: Exception) -> str:
    cause = exc.orig if isinstance(exc, DBAPIError) and exc.orig is not None else exc
    said = cause.strerror if isinstance(cause, OSError) else str(cause)
    return (said or type(cause).__name__).partition("\n")[0]


def _make_file(url: URL) -> None:
    """SQLite's file, for its owner only: conversations are in it."""
    if url.database is not None:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        Path(url.database).touch(mode=0o600)


def _create_engine(url: URL) -> AsyncEngine:
    is_sqlite = url.get_backend_name() == "sqlite"
    engine = create_async_engine(
        url,
        json_serializer=lambda value: orjson.dumps(value).decode(),
        json_deserializer=orjson.loads,
        # SQLite's waits for another transaction, PostgreSQL's for the server to be reached
        connect_args={"timeout": LOCK_TIMEOUT_S if is_sqlite else CONNECT_TIMEOUT_S},
        pool_pre_ping=not is_sqlite,  # a server that was restarted is not seen by a connection
        hide_parameters=True,  # conversations, which else stood in errors and with them in the log
    )
    if is_sqlite:
        event.listen(engine.sync_engine, "connect", _set_up_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver leaves transactions to us
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the writer
    cursor.execute("PRAGMA synchronous=NORMAL")  # a power cut may cost the last commits, no more
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """A transaction that reads before it writes could not wait for another's lock in between."""
    is_write = connection.get_execution_options().get(_IS_WRITE)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
    newest = ScriptDirectory.from_config(config).get_current_head()
    if MigrationContext.configure(connection).get_current_revision() != newest:
        command.upgrade(config, "head")
