"""The file of limits, checked whole at the start and read anew when it changes.

[keys]                          # each API key or JWT subject that has no limits of its own
requests_per_minute = 600
tokens_per_minute = 200_000     # of prompts and answers
tokens_per_day = 10_000_000
concurrent_requests = 32
[addresses]                     # each client address, where nobody has to say who they are
requests_per_minute = 60        # (of IPv6: each /64)
[tenants.acme]                  # all keys of this tenant together
tokens_per_day = 100_000_000
[tenants."*"]                   # each other tenant: an exact name wins, then the first glob
tokens_per_day = 10_000_000
[models."llama-*"]              # each such model, by all clients together
concurrent_requests = 8
[budgets.acme]                  # of a tenant (or a glob), each calendar month (UTC)
tokens = 500_000_000
money = 200.0
[prices."*"]                    # of a model (or a glob): a million tokens
prompt = 0.10
cached = 0.05                   # of the prompt, found in the prefix cache; left out: as prompt
completion = 0.40               # has reasoning in it
"""

from __future__ import annotations

import asyncio
import logging
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from frontend.limits.buckets import LimitSet
from frontend.limits.policy import Budget, Policy, Price
from frontend.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

DEFAULT_NAME = "limits.toml"
LOOK_EVERY_S = 0.5  # taken when two looks see the same: within about a second
_PLAIN: Mapping[str, type[LimitSet]] = {"keys": LimitSet, "addresses": LimitSet}
_BY_NAME: Mapping[str, type[msgspec.Struct]] = {
    "tenants": LimitSet,
    "models": LimitSet,
    "budgets": Budget,
    "prices": Price,
}
_PLACE = re.compile(r"(?P<problem>.*?)(?: - at `\$\.(?P<field>\w+)`)?", re.DOTALL)
_BARE_NAME = re.compile(r"[A-Za-z0-9_-]+")  # TOML's: without quotes
Struct = TypeVar("Struct", bound=msgspec.Struct)
# What tells that a file is another one: when it or its rights were changed, its size, its inode.
Signature = tuple[int, int, int]


def policy_file(settings: Settings) -> PolicyFile:
    """The one that the settings name, or limits.toml in the home, which may be missing."""
    named = settings.limits_file
    return PolicyFile(named or settings.home / DEFAULT_NAME, is_required=named is not None)


def load_policy(path: Path) -> Policy:
    """
    Raises:
        SettingsError: the file cannot be read or used; with one line that says where and why.
    """
    try:
        return read_policy(path.read_text("utf-8"))
    except OSError as exc:
        raise SettingsError(f"limits_file: {path}: {exc.strerror}") from exc
    except (ValueError, RecursionError) as exc:
        raise SettingsError(f"limits_file: {path}: {exc}") from exc


def read_policy(text: str) -> Policy:
    """
    Raises:
        ValueError: with the place in the text, and what would be right there.
    """
    tables = tomllib.loads(text)
    if unknown := tables.keys() - _PLAIN.keys() - _BY_NAME.keys():
        raise _unknown(min(unknown), [*_PLAIN, *_BY_NAME])
    read: dict[str, Any] = {}
    for name, limits in _PLAIN.items():
        if name in tables:
            read[name] = _read(tables[name], limits, name, example=f"[{name}]")
    for name, type_ in _BY_NAME.items():
        example = f'[{name}."*"]'
        read[name] = {
            key: _read(entry, type_, f"{name}.{_quoted(key)}", example)
            for key, entry in _table(tables.get(name, {}), name, example).items()
        }
    for name, budget in read["budgets"].items():
        if budget.money is not None and not read["prices"]:
            raise ValueError(f'budgets.{_quoted(name)}.money: needs prices, as [prices."*"]')
    return Policy(**read)


def _read(entry: object, type_: type[Struct], place: str, example: str) -> Struct:
    table = _table(entry, place, example)
    fields = type_.__struct_fields__
    if unknown := table.keys() - set(fields):
        raise _unknown(f"{place}.{min(unknown)}", fields)
    try:
        return msgspec.convert(table, type_)
    except msgspec.ValidationError as exc:
        found = _PLACE.fullmatch(str(exc))
        assert found is not None
        problem = found["problem"].replace("`", "").replace(" | null", "")
        if (field := found["field"]) is None:
            raise ValueError(f"{place}: {problem}") from exc
        raise ValueError(f"{place}.{field}: {problem}, not {table[field]!r}") from exc


def _table(entry: object, place: str, example: str) -> Mapping[str, Any]:
    if not isinstance(entry, dict):
        raise ValueError(f"{place}: belongs into a table, as {example}")
    return entry


def _unknown(place: str, known: Iterable[str]) -> ValueError:
    return ValueError(f"{place}: unknown; there are {', '.join(known)}")


def _quoted(name: str) -> str:
    return name if _BARE_NAME.fullmatch(name) else f'"{name}"'


class PolicyFile:
    """One worker's policy in force. `open` it when its loop runs.

    Args:
        is_required: False: it may be missing at the start, and come later.
    """

    def __init__(
        self, path: Path, *, is_required: bool = True, look_every_s: float = LOOK_EVERY_S
    ) -> None:
        self.policy = Policy()
        self._path = path
        self._is_required = is_required
        self._look_every_s = look_every_s
        self._taken: Signature | None = None  # of what is in force, or was refused
        self._seen: Signature | None = None  # at the last look
        self._looking: asyncio.Task[None] | None = None

    def check(self) -> None:
        """Take it as it is now.

        Raises:
            SettingsError: it cannot be used.
        """
        self._taken = self._seen = _signature(self._path)
        if self._taken is not None or self._is_required:
            self.policy = load_policy(self._path)

    def open(self) -> None:
        """`check`, and from now on as it changes."""
        self.check()
        self._looking = asyncio.create_task(self._look_for_ever(), name="look at limits")

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._look_every_s)
            await asyncio.to_thread(self.look)  # thousands of tenants take a while

    def look(self) -> None:
        """A file that two looks find alike is whole: an editor may write it in parts."""
        before, self._seen = self._seen, _signature(self._path)
        if self._seen == self._taken or self._seen != before:
            return
        self._taken = self._seen
        try:
            self.policy = load_policy(self._path)
        except SettingsError as exc:  # met once: its signature is known now
            logger.error("limits not changed", extra={"reason": str(exc)})
        else:
            logger.info("limits changed", extra={"file": str(self._path)})


def _signature(path: Path) -> Signature | None:
    """None: there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ctime_ns, found.st_size, found.st_ino
