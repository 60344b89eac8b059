"""The store of responses in real databases, as several workers share them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from frontend.access.identity import EVERY_MODEL, Identity
from frontend.settings import SettingsError
from frontend.store.database import MIGRATIONS, Database
from frontend.store.own_responses import MAX_EVENTS_READ, OwnResponses
from frontend.store.responses import MAX_DELETED, ResponseStore, StoredResponse
from frontend.store.schema import metadata
from tests.fakes.postgres import Postgres

RETENTION_S = 3600.0


@pytest.fixture
def store(database: Database) -> ResponseStore:
    return ResponseStore(database, retention_s=RETENTION_S)


@pytest.fixture
def own(store: ResponseStore) -> OwnResponses:
    return own_of(store)


def own_of(store: ResponseStore, tenant: str = "default", *models: str) -> OwnResponses:
    return OwnResponses(store, Identity(tenant=tenant, models=models or EVERY_MODEL))


def item(item_id: str) -> dict[str, Any]:
    return {"id": item_id, "type": "message"}


def response(response_id: str, **fields: Any) -> StoredResponse:
    given: dict[str, Any] = {
        "tenant": "default",
        "model": "tiny",
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


async def test_an_address_may_say_as_elsewhere_how_it_is_encrypted(postgres: Postgres) -> None:
    url = postgres.new_database()
    await (await Database.open(f"{url}?sslmode=prefer")).close()
    for problem in ("sslmode=require", "sslmode=perhaps", "colour=red"):  # this server has no TLS
        with pytest.raises(SettingsError, match=r"^the database test_\w+ at .*: ."):
            await Database.open(f"{url}?{problem}")


async def test_workers_that_start_at_once_make_the_tables_once(database_url: str) -> None:
    databases = await asyncio.gather(*(Database.open(database_url) for _ in range(4)))
    stores = [ResponseStore(database, retention_s=RETENTION_S) for database in databases]
    await stores[0].add(response("a"))
    assert [found is not None for found in [await own_of(s).get("a") for s in stores]] == [True] * 4
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
            assert await own_of(store).get("a") == given
        await database.close()


async def test_what_the_first_tables_hold_is_the_default_tenants(database_url: str) -> None:
    def back(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")

    database = await Database.open(database_url)
    body = {"id": "a", "model": "tuned:poet"}
    await ResponseStore(database, retention_s=RETENTION_S).add(
        response("a", tenant="lab", model="x", body=body)
    )
    async with database.write() as connection:
        await connection.run_sync(back)
    await database.close()
    database = await Database.open(database_url)
    store = ResponseStore(database, retention_s=RETENTION_S)
    found = await own_of(store).get("a")
    assert found is not None
    assert (found.tenant, found.model, found.body) == ("default", "tuned:poet", body)
    assert await own_of(store, "lab").get("a") is None
    await database.close()


@pytest.mark.parametrize("other", [("lab",), ("default", "tiny-*"), ("", "*")])
async def test_to_others_a_response_is_not_there(
    store: ResponseStore, own: OwnResponses, other: tuple[str, ...]
) -> None:
    await store.add(running("a", has_events=True))
    await store.add_events("a", events(0))
    theirs = own_of(store, *other)
    assert await theirs.get("a") is None
    assert await theirs.status("a") is None
    assert await theirs.chain("a") == []
    assert await theirs.find_items({"a-in"}) == {}
    assert await theirs.events("a", after=-1) == []
    assert not await theirs.delete("a")
    await theirs.cancel("a")
    assert await own.status("a") == "queued"
    assert await own.events("a", after=-1) == events(0)
    assert await own.find_items({"a-in"}) == {"a-in": item("a-in")}


async def test_a_chain_ends_where_who_asks_may_see_no_more(store: ResponseStore) -> None:
    await store.add(response("a"))
    await store.add(response("b", previous_response_id="a", model="large"))
    await store.add(response("c", previous_response_id="b"))
    await store.add(response("d", previous_response_id="c"))
    found = await own_of(store, "default", "tiny").chain("d")
    assert [one.id for one in found] == ["c", "d"]
    assert found[0].previous_response_id == "b", "as if it had been deleted"


async def test_an_item_with_the_id_of_anothers_does_not_take_its_place(
    store: ResponseStore, own: OwnResponses
) -> None:
    await store.add(response("a"))
    forged = {**item("a-out"), "text": "forged"}
    await store.add(response("b", tenant="lab", input=[forged], created_at=time.time() + 1))
    assert await own.find_items({"a-out"}) == {"a-out": item("a-out")}


async def test_it_is_shown_with_its_status_and_output(
    store: ResponseStore, own: OwnResponses
) -> None:
    await store.add(response("a"))
    found = await own.get("a")
    assert found is not None
    assert found.shown() == {
        "id": "a",
        "error": None,
        "status": "completed",
        "output": [item("a-out")],
    }
    assert await own.get("b") is None


async def test_a_chain_is_a_conversation_from_its_beginning(
    store: ResponseStore, own: OwnResponses
) -> None:
    await store.add(response("a"))
    await store.add(response("b", previous_response_id="a"))
    await store.add(response("c", previous_response_id="b"))
    await store.add(response("other", previous_response_id="a"))
    assert [one.id for one in await own.chain("c")] == ["a", "b", "c"]
    assert [one.id for one in await own.chain("other")] == ["a", "other"]
    assert await own.chain("nobody") == []
    assert await own.chain("a\0") == await own.chain("a\ud800") == [], "no database has such"


async def test_a_chain_names_what_is_missing(store: ResponseStore, own: OwnResponses) -> None:
    await store.add(response("a"))
    await store.add(response("b", previous_response_id="a"))
    await store.add(response("c", previous_response_id="b"))
    assert await own.delete("a")
    assert (await own.chain("c"))[0].previous_response_id == "a"


async def test_items_are_found_by_id_the_newest_first(
    store: ResponseStore, own: OwnResponses
) -> None:
    old = {**item("same"), "text": "old"}
    new = {**item("same"), "text": "new"}
    await store.add(response("b", input=[new], created_at=time.time()))
    await store.add(response("a", input=[old], created_at=time.time() - 60))
    assert await own.find_items({"same", "a-out", "nobody", "a\0", "a\ud800"}) == {
        "same": new,
        "a-out": item("a-out"),
    }


async def test_deleting_takes_items_and_events_along(
    store: ResponseStore, own: OwnResponses
) -> None:
    await store.add(running("a", has_events=True))
    await store.add_events("a", events(0))
    assert await own.delete("a")
    assert not await own.delete("a")
    assert await own.find_items({"a-in"}) == {}
    assert await own.events("a", after=-1) == []


async def test_old_responses_are_gone_at_once_and_collected_later(
    store: ResponseStore, own: OwnResponses
) -> None:
    old_s = time.time() - RETENTION_S - 1
    for i in range(MAX_DELETED + 1):
        await store.add(response(f"old-{i}", created_at=old_s, input=[], output=[]))
    await store.add(running("old-but-running", created_at=old_s))
    await store.add(response("new"))
    assert await own.get("old-0") is None
    assert await own.chain("old-0") == []
    assert not await own.delete("old-0")
    assert [await store.collect() for _ in range(3)] == [MAX_DELETED, 1, 0]
    assert await own.get("new") is not None
    assert await store.finish("old-but-running", "completed")


async def test_a_running_response_ends_once(store: ResponseStore, own: OwnResponses) -> None:
    await store.add(running("a", has_events=True))
    await store.begin("a")
    found = await own.get("a")
    assert found is not None
    assert found.status == "in_progress"
    changes = {"error": {"code": "x"}}
    out = [item("o1"), item("o2")]
    assert await store.finish("a", "failed", changes=changes, output=out, events=events(4))
    assert not await store.finish("a", "completed", output=[item("late")])
    await store.begin("a")
    await store.add_events("a", events(5))
    found = await own.get("a")
    assert found is not None
    assert (found.status, found.body["error"], found.output) == ("failed", {"code": "x"}, out)
    assert found.input == [item("a-in")]
    assert await own.events("a", after=-1) == events(4)


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
        found = await own_of(stores[0]).get(str(i))
        assert found is not None
        assert found.output == [item(found.status)]
    for database in databases:
        await database.close()


async def test_events_are_read_in_pages_of_their_order(
    store: ResponseStore, own: OwnResponses
) -> None:
    await store.add(running("a", has_events=True))
    await store.add_events("a", events(*range(MAX_EVENTS_READ + 2)))
    first = await own.events("a", after=-1)
    assert first == events(*range(MAX_EVENTS_READ))
    rest = await own.events("a", after=MAX_EVENTS_READ - 1)
    assert rest == events(MAX_EVENTS_READ, MAX_EVENTS_READ + 1)


async def test_leases_tell_who_is_wanted_and_who_is_abandoned(
    store: ResponseStore, own: OwnResponses
) -> None:
    now = time.time()
    for name in ("alive", "dead", "cancelled", "deleted"):
        await store.add(running(name), lease_until=now - 1)
    await store.finish("cancelled", "cancelled")
    await own.delete("deleted")
    assert await store.renew(["alive", "cancelled", "deleted"], now + 60) == {"alive"}
    assert await store.abandoned() == ["dead"]


async def test_a_worker_that_comes_back_keeps_its_response(
    store: ResponseStore, own: OwnResponses
) -> None:
    await store.add(running("late"), lease_until=time.time() - 1)
    assert await store.abandoned() == ["late"]
    await store.renew(["late"], time.time() + 60)
    assert not await store.finish("late", "failed", only_abandoned=True)
    assert await own.status("late") == "queued"
    await store.renew(["late"], time.time() - 1)
    assert await store.finish("late", "failed", only_abandoned=True)


async def test_events_that_come_again_are_kept_once(
    store: ResponseStore, own: OwnResponses
) -> None:
    await store.add(running("a", has_events=True))
    await store.add_events("a", events(0, 1))
    await store.add_events("a", events(0, 1, 2))
    assert await store.finish("a", "failed", events=events(2, 3))
    assert await own.events("a", after=-1) == events(0, 1, 2, 3)


async def test_more_items_are_found_than_one_statement_may_name(
    store: ResponseStore, own: OwnResponses
) -> None:
    await store.add(response("a"))
    names = [f"item-{i}" for i in range(300_000)]  # SQLite takes 250,000 at the most
    assert await own.find_items([*names, "a-in"]) == {"a-in": item("a-in")}


async def test_what_was_said_is_in_no_error(store: ResponseStore) -> None:
    await store.add(response("a"))
    with pytest.raises(IntegrityError) as failed:
        await store.add(response("a", body={"instructions": "a secret"}))
    assert "a secret" not in str(failed.value)
