"""API keys in the database: made, listed, revoked, rotated, found by the hash of a secret.

Every change gives the key the next number of `api_key_changes`, by which each worker learns what
it has to forget (frontend/access/key_cache.py). Secrets themselves are stored nowhere.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    bindparam,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from frontend.access.identity import (
    DEFAULT_SCOPES,
    EVERY_MODEL,
    Identity,
    Scope,
)
from frontend.access.secrets import hash_of, new_key_id, new_secret, shown
from frontend.limits.buckets import LimitSet
from frontend.store.database import Database
from frontend.store.schema import api_key_changes, api_key_secrets, api_keys

LAST_USE_STEP_S = 60.0  # how coarse `last_used_at` is


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as its owner may see it. Times in Unix seconds."""

    id: str
    name: str
    tenant: str = "default"
    scopes: frozenset[Scope] = DEFAULT_SCOPES
    models: tuple[str, ...] = EVERY_MODEL
    limits: LimitSet | None = None
    shown: str = ""  # the first characters of its newest secret
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = None

    def is_valid(self, now: float) -> bool:
        is_expired = self.expires_at is not None and self.expires_at <= now
        return self.revoked_at is None and not is_expired

    def facts(self) -> dict[str, Any]:
        """It as JSON shows it."""
        return {
            **asdict(self),
            "scopes": sorted(self.scopes),
            "models": list(self.models),
            "limits": _stored_limits(self.limits),
            "valid": self.is_valid(time.time()),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """What the database said of a hash, all of one moment."""

    change_number: int  # the last change that this has in it
    identity: Identity | None  # None: there is no such secret, or it is revoked
    expires_at: float | None = None  # of the secret or the key, whichever is first


class ApiKeyStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, key: ApiKey) -> tuple[ApiKey, str]:
        """Store a new key; its id and times are given here. The secret is told this once."""
        key_id, secret, now = new_key_id(), new_secret(), time.time()
        values = {
            "id": key_id,
            "name": key.name,
            "tenant": key.tenant,
            "scopes": sorted(key.scopes),
            "models": list(key.models),
            "limits": _stored_limits(key.limits),
            "created_at": now,
            "expires_at": key.expires_at,
        }
        async with self._database.write() as connection:
            number = await _next_change(connection)
            await connection.execute(insert(api_keys).values(**values, changed_in=number))
            await _add_secret(connection, key_id, secret, now)
            return await _get(connection, key_id), secret

    async def get(self, key_id: str) -> ApiKey | None:
        found = await self._read(_shown_keys().where(api_keys.c.id == key_id))
        return found[0] if found else None

    async def list_keys(self, *, tenant: str | None = None) -> list[ApiKey]:
        """All keys, or those of a tenant, oldest first; revoked and expired ones too."""
        query = _shown_keys().order_by(api_keys.c.created_at, api_keys.c.id)
        return await self._read(query if tenant is None else query.where(_is_of(tenant)))

    async def revoke(self, key_id: str) -> ApiKey | None:
        """Refuse it from now on, for good. None: there is no such key."""
        # a second time changes nothing
        revoked_at = func.coalesce(api_keys.c.revoked_at, time.time())
        return await self._change(key_id, {"revoked_at": revoked_at})

    async def set_limits(self, key_id: str, limits: LimitSet | None) -> ApiKey | None:
        """None: there is no such key."""
        return await self._change(key_id, {"limits": _stored_limits(limits)})

    async def rotate(self, key_id: str, *, grace_s: float) -> tuple[ApiKey, str] | None:
        """Give it another secret; those that it has are valid for grace_s longer, no more.

        None: there is no such key, or it is revoked or expired.
        """
        secret, now = new_secret(), time.time()
        end = now + grace_s
        async with self._database.write() as connection:
            number = await _next_change(connection)
            is_valid = api_keys.c.revoked_at.is_(None) & _is_before_its_end(now)
            changed = await connection.execute(
                update(api_keys)
                .where(api_keys.c.id == key_id, is_valid)
                .values(changed_in=number)
                .returning(api_keys.c.id)
            )
            if changed.one_or_none() is None:
                return None
            ends_later = or_(
                api_key_secrets.c.expires_at.is_(None), api_key_secrets.c.expires_at > end
            )
            await connection.execute(
                update(api_key_secrets)
                .where(api_key_secrets.c.key_id == key_id, ends_later)
                .values(expires_at=end)
            )
            await _add_secret(connection, key_id, secret, now)
            return await _get(connection, key_id), secret

    async def find(self, secret_hash: bytes) -> Lookup:
        """What the secret of this hash proves."""
        key_of_it = api_key_secrets.join(api_keys, api_keys.c.id == api_key_secrets.c.key_id)
        query = (
            select(api_keys, api_key_secrets.c.expires_at.label("secret_expires_at"))
            .select_from(key_of_it)
            .where(api_key_secrets.c.hash == secret_hash)
        )
        async with self._database.read() as connection:
            change_number = (await connection.execute(_CHANGE_NUMBER)).scalar_one()
            row = (await connection.execute(query)).one_or_none()
        if row is None or row.revoked_at is not None:
            return Lookup(change_number=change_number, identity=None)
        ends = [end for end in (row.expires_at, row.secret_expires_at) if end is not None]
        expires_at = min(ends, default=None)
        identity = Identity(
            tenant=row.tenant,
            key_id=row.id,
            scopes=_scopes(row.scopes),
            models=tuple(row.models),
            limits=_limits(row.limits),
            expires_at=expires_at,
        )
        return Lookup(change_number=change_number, identity=identity, expires_at=expires_at)

    async def change_number(self) -> int:
        """Of the last change to any key."""
        async with self._database.read() as connection:
            number: int = (await connection.execute(_CHANGE_NUMBER)).scalar_one()
        return number

    async def changed_since(self, number: int) -> set[bytes]:
        """Hashes of all secrets of the keys that were changed after this number."""
        query = (
            select(api_key_secrets.c.hash)
            .join(api_keys, api_keys.c.id == api_key_secrets.c.key_id)
            .where(api_keys.c.changed_in > number)
        )
        async with self._database.read() as connection:
            return set((await connection.execute(query)).scalars())

    async def note_uses(self, used_at: Mapping[str, float]) -> None:
        """When keys were used last, by id. No change that workers have to hear of."""
        if not used_at:
            return
        is_earlier = or_(
            api_keys.c.last_used_at.is_(None),
            api_keys.c.last_used_at < bindparam("at"),
        )
        query = (
            update(api_keys)
            .where(api_keys.c.id == bindparam("key"), is_earlier)
            .values(last_used_at=bindparam("at"))
        )
        # in one order: workers that write at once then wait for each other, and no more
        rows = [{"key": key_id, "at": used_at[key_id]} for key_id in sorted(used_at)]
        async with self._database.write() as connection:
            await connection.execute(query, rows)

    async def _change(self, key_id: str, values: Mapping[str, Any]) -> ApiKey | None:
        async with self._database.write() as connection:
            number = await _next_change(connection)
            changed = await connection.execute(
                update(api_keys)
                .where(api_keys.c.id == key_id)
                .values(**values, changed_in=number)
                .returning(api_keys.c.id)
            )
            return await _get(connection, key_id) if changed.one_or_none() is not None else None

    async def _read(self, query: Select[Any]) -> list[ApiKey]:
        async with self._database.read() as connection:
            return [_api_key(row) for row in await connection.execute(query)]


_CHANGE_NUMBER = select(api_key_changes.c.number)


def _is_of(tenant: str) -> ColumnElement[bool]:
    return api_keys.c.tenant == tenant


def _is_before_its_end(now: float) -> ColumnElement[bool]:
    return or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now)


async def _next_change(connection: AsyncConnection) -> int:
    """The first thing that a changing transaction does: others then wait until it has ended."""
    query = update(api_key_changes).values(number=api_key_changes.c.number + 1)
    found = await connection.execute(query.returning(api_key_changes.c.number))
    number: int = found.scalar_one()
    return number


async def _add_secret(
    connection: AsyncConnection, key_id: str, secret: str, created_at: float
) -> None:
    await connection.execute(
        insert(api_key_secrets).values(
            hash=hash_of(secret), key_id=key_id, shown=shown(secret), created_at=created_at
        )
    )


def _shown_keys() -> Select[Any]:
    """Keys with the beginning of their newest secret."""
    newest = (
        select(api_key_secrets.c.shown)
        .where(api_key_secrets.c.key_id == api_keys.c.id)
        .order_by(api_key_secrets.c.created_at.desc())
        .limit(1)
        .scalar_subquery()
    )
    return select(api_keys, newest.label("shown"))


async def _get(connection: AsyncConnection, key_id: str) -> ApiKey:
    return _api_key((await connection.execute(_shown_keys().where(api_keys.c.id == key_id))).one())


def _api_key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        tenant=row.tenant,
        scopes=_scopes(row.scopes),
        models=tuple(row.models),
        limits=_limits(row.limits),
        shown=row.shown,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )


def _scopes(names: Sequence[str]) -> frozenset[Scope]:
    """Those that this version knows: a newer one may have written others beside them."""
    return frozenset(scope for scope in Scope if scope in names)


def _limits(stored: dict[str, Any] | None) -> LimitSet | None:
    return None if stored is None else msgspec.convert(stored, LimitSet)


def _stored_limits(limits: LimitSet | None) -> dict[str, Any] | None:
    return None if limits is None else msgspec.structs.asdict(limits)
