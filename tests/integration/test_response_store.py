"""The store of responses in real databases, as several workers share them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from frontend.store.database import Database
from frontend.store.responses import MAX_DELETED, MAX_EVENTS_READ, ResponseStore, StoredResponse
from frontend.store.schema import metadata

RETENTION_S = 3600.0


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await Database.open(database_url)
    yield database
    await database.close()


@pytest.fixture
def store(database: Database) -> ResponseStore:
    return ResponseStore(database, retention_s=RETENTION_S)


def item(item_id: str) -> dict[str, Any]:
    return {"id": item_id, "type": "message"}


def response(response_id: str, **fields: Any) -> StoredResponse:
    given: dict[str, Any] = {
        "created_at": time.time(),
        "status": "completed",
        "body": {"id": response_id, "error": None},
        "input": [item(f"{response_id}-in")],
        "output": [item(f"{response_id}-out")],
    }
    return StoredResponse(id=response_id, **{**given, **fields})


def running(response_id: str, **fields: Any) -> StoredResponse:
    return response(response_id, status="queued", is_background=True, output=[], **fields)


def events(*numbers: int) -> list[dict[str, Any]]:
    return [{"type": "e", "sequence_number": number} for number in numbers]


async def test_migrations_make_the_tables_that_the_code_uses(database: Database) -> None:
    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection)
        return list(compare_metadata(context, metadata))

    async with database.read() as connection:
        assert await connection.run_sync(differences) == []


async def test_workers_that_start_at_once_make_the_tables_once(database_url: str) -> None:
    databases = await asyncio.gather(*(Database.open(database_url) for _ in range(4)))
    stores = [ResponseStore(database, retention_s=RETENTION_S) for database in databases]
    await stores[0].add(response("a"))
    assert [found is not None for found in [await s.get("a") for s in stores]] == [True] * 4
    for database in databases:
        await database.close()


async def test_sqlites_file_is_for_its_owner_only(tmp_path: Path) -> None:
    database = await Database.open(f"sqlite:///{tmp_path / 'state' / 'inflight.db'}")
    files = list((tmp_path / "state").iterdir())
    assert files
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o600"}
    await database.close()


async def test_a_response_is_there_after_a_restart(database_url: str) -> None:
    given = response("a", previous_response_id="z", is_background=True, has_events=True)
    for step in ("write", "read"):
        database = await Database.open(database_url)
        store = ResponseStore(database, retention_s=RETENTION_S)
        if step == "write":
            await store.add(given)
        else:
            assert await store.get("a") == given
        await database.close()


async def test_it_is_shown_with_its_status_and_output(store: ResponseStore) -> None:
    await store.add(response("a"))
    found = await store.get("a")
    assert found is not None
    assert found.shown() == {
        "id": "a",
        "error": None,
        "status": "completed",
        "output": [item("a-out")],
    }
    assert await store.get("b") is None


async def test_a_chain_is_a_conversation_from_its_beginning(store: ResponseStore) -> None:
    await store.add(response("a"))
    await store.add(response("b", previous_response_id="a"))
    await store.add(response("c", previous_response_id="b"))
    await store.add(response("other", previous_response_id="a"))
    assert [one.id for one in await store.chain("c")] == ["a", "b", "c"]
    assert [one.id for one in await store.chain("other")] == ["a", "other"]
    assert await store.chain("nobody") == []


async def test_a_chain_names_what_is_missing(store: ResponseStore) -> None:
    await store.add(response("a"))
    await store.add(response("b", previous_response_id="a"))
    await store.add(response("c", previous_response_id="b"))
    assert await store.delete("a")
    assert (await store.chain("c"))[0].previous_response_id == "a"


async def test_items_are_found_by_id_the_newest_first(store: ResponseStore) -> None:
    old = {**item("same"), "text": "old"}
    new = {**item("same"), "text": "new"}
    await store.add(response("b", input=[new], created_at=time.time()))
    await store.add(response("a", input=[old], created_at=time.time() - 60))
    assert await store.find_items({"same", "a-out", "nobody"}) == {
        "same": new,
        "a-out": item("a-out"),
    }


async def test_deleting_takes_items_and_events_along(store: ResponseStore) -> None:
    await store.add(running("a", has_events=True))
    await store.add_events("a", events(0))
    assert await store.delete("a")
    assert not await store.delete("a")
    assert await store.find_items({"a-in"}) == {}
    assert await store.events("a", after=-1) == []


async def test_old_responses_are_gone_at_once_and_collected_later(store: ResponseStore) -> None:
    old_s = time.time() - RETENTION_S - 1
    for i in range(MAX_DELETED + 1):
        await store.add(response(f"old-{i}", created_at=old_s, input=[], output=[]))
    await store.add(running("old-but-running", created_at=old_s))
    await store.add(response("new"))
    assert await store.get("old-0") is None
    assert await store.chain("old-0") == []
    assert not await store.delete("old-0")
    assert [await store.collect() for _ in range(3)] == [MAX_DELETED, 1, 0]
    assert await store.get("new") is not None
    assert await store.finish("old-but-running", "completed")


async def test_a_running_response_ends_once(store: ResponseStore) -> None:
    await store.add(running("a", has_events=True))
    await store.begin("a")
    found = await store.get("a")
    assert found is not None
    assert found.status == "in_progress"
    changes = {"error": {"code": "x"}}
    out = [item("o1"), item("o2")]
    assert await store.finish("a", "failed", changes=changes, output=out, events=events(4))
    assert not await store.finish("a", "completed", output=[item("late")])
    await store.begin("a")
    await store.add_events("a", events(5))
    found = await store.get("a")
    assert found is not None
    assert (found.status, found.body["error"], found.output) == ("failed", {"code": "x"}, out)
    assert found.input == [item("a-in")]
    assert await store.events("a", after=-1) == events(4)


async def test_of_two_that_end_a_response_one_wins(database_url: str) -> None:
    databases = [await Database.open(database_url) for _ in range(2)]
    stores = [ResponseStore(database, retention_s=RETENTION_S) for database in databases]
    for i in range(20):
        await stores[0].add(running(str(i)))
        won = await asyncio.gather(
            *(
                store.finish(str(i), status, output=[item(status)])
                for store, status in zip(stores, ("completed", "cancelled"), strict=True)
            )
        )
        assert sorted(won) == [False, True]
        found = await stores[0].get(str(i))
        assert found is not None
        assert found.output == [item(found.status)]
    for database in databases:
        await database.close()


async def test_events_are_read_in_pages_of_their_order(store: ResponseStore) -> None:
    await store.add(running("a", has_events=True))
    await store.add_events("a", events(*range(MAX_EVENTS_READ + 2)))
    first = await store.events("a", after=-1)
    assert first == events(*range(MAX_EVENTS_READ))
    rest = await store.events("a", after=MAX_EVENTS_READ - 1)
    assert rest == events(MAX_EVENTS_READ, MAX_EVENTS_READ + 1)


async def test_leases_tell_who_is_wanted_and_who_is_abandoned(store: ResponseStore) -> None:
    now = time.time()
    for name in ("alive", "dead", "cancelled", "deleted"):
        await store.add(running(name), lease_until=now - 1)
    await store.finish("cancelled", "cancelled")
    await store.delete("deleted")
    assert await store.renew(["alive", "cancelled", "deleted"], now + 60) == {"alive"}
    assert await store.abandoned() == ["dead"]


async def test_a_worker_that_comes_back_keeps_its_response(store: ResponseStore) -> None:
    await store.add(running("late"), lease_until=time.time() - 1)
    assert await store.abandoned() == ["late"]
    await store.renew(["late"], time.time() + 60)
    assert not await store.finish("late", "failed", only_abandoned=True)
    assert await store.status("late") == "queued"
    await store.renew(["late"], time.time() - 1)
    assert await store.finish("late", "failed", only_abandoned=True)


async def test_events_that_come_again_are_kept_once(store: ResponseStore) -> None:
    await store.add(running("a", has_events=True))
    await store.add_events("a", events(0, 1))
    await store.add_events("a", events(0, 1, 2))
    assert await store.finish("a", "failed", events=events(2, 3))
    assert await store.events("a", after=-1) == events(0, 1, 2, 3)


async def test_more_items_are_found_than_one_statement_may_name(store: ResponseStore) -> None:
    await store.add(response("a"))
    names = [f"item-{i}" for i in range(300_000)]  # SQLite takes 250,000 at the most
    assert await store.find_items([*names, "a-in"]) == {"a-in": item("a-in")}


async def test_what_was_said_is_in_no_error(store: ResponseStore) -> None:
    await store.add(response("a"))
    with pytest.raises(IntegrityError) as failed:
        await store.add(response("a", body={"instructions": "a secret"}))
    assert "a secret" not in str(failed.value)
