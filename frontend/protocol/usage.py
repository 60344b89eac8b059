"""The query of GET /v1/usage, which `inflight usage` asks too, and its answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Self

import msgspec
from msgspec import Meta

from frontend.errors import InvalidParameter
from frontend.protocol.limits import one_of
from frontend.protocol.parse import check_choice
from frontend.usage.record import next_month
from frontend.usage.sums import GROUPS, UsageSum, total_of

Arguments = Mapping[str, Sequence[str]]

FORMATS = ("json", "csv")
USUAL_GROUPS = ("tenant", "key", "model")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MONTH = re.compile(r"[12][0-9]{3}-[01][0-9]")


def _words(english: str, chinese: str, **keywords: str) -> Meta:
    words = {"x-description-zh": chinese, **keywords}
    return Meta(description=english, extra_json_schema=words)


class UsageQuery(msgspec.Struct, kw_only=True, frozen=True):
    """What of the usage is asked for; a field that is None is not filtered by."""

    since: Annotated[
        date, _words("The first day (UTC); else the first of its month.", "起始日（UTC）。")
    ]
    until: Annotated[date, _words("The last day (UTC); else today.", "结束日（UTC）。")]
    month: Annotated[
        str | None,
        _words(
            "As 2026-11; in place of both.", "月份，如 2026-11。", pattern=f"^{_MONTH.pattern}$"
        ),
    ] = None
    tenant: Annotated[str | None, _words("Only of this tenant.", "只看此租户。")] = None
    key: Annotated[
        str | None,
        _words("Only of the API key with this id.", "只看此 API 密钥（按 id）。"),
    ] = None
    model: Annotated[str | None, _words("Only of this model.", "只看此模型。")] = None
    outcome: Annotated[
        str | None,
        _words("Only requests that ended so: stop, length, ...", "只看以此方式结束的请求。"),
    ] = None
    batch: Annotated[
        bool | None, _words("Only of batches, or only of others.", "只看（或不看）批处理。")
    ] = None
    group_by: Annotated[
        tuple[Annotated[str, one_of(*GROUPS)], ...],
        _words(
            "What to sum up by, comma between or again for more; empty: one sum of all.",
            "汇总维度，用逗号分隔或重复填写；为空则只给出总和。",
        ),
    ] = USUAL_GROUPS
    format: Annotated[
        str | None,
        one_of(*FORMATS),
        _words("Else what `Accept` prefers.", "不填则由 `Accept` 决定。"),
    ] = None

    @classmethod
    def read(cls, arguments: Arguments) -> Self:
        """
        Raises:
            InvalidParameter: names the parameter.
        """
        for name, values in arguments.items():
            if name not in cls.__struct_fields__:
                raise InvalidParameter(name, "unknown_field")
            if len(values) > 1 and name != "group_by":
                raise InvalidParameter(name, "duplicate", value=", ".join(values))
        given = {name: values[0] for name, values in arguments.items() if name != "group_by"}
        since, until = _period(given)
        if (batch := given.get("batch")) is not None:
            check_choice("batch", batch, ("true", "false"))
        if (answer_format := given.get("format")) is not None:
            check_choice("format", answer_format, FORMATS)
        return cls(
            since=since,
            until=until,
            month=given.get("month"),
            batch=None if batch is None else batch == "true",
            group_by=_groups(arguments),
            format=answer_format,
            **{name: given.get(name) for name in ("tenant", "key", "model", "outcome")},
        )

    def filters(self) -> dict[str, str | bool]:
        """By names of GROUPS, what they have to be."""
        given = {name: getattr(self, name) for name in GROUPS if name != "day"}
        return {name: value for name, value in given.items() if value is not None}


def encode_usage(query: UsageQuery, sums: Sequence[UsageSum]) -> dict[str, Any]:
    return {
        "object": "usage",
        "since": query.since.isoformat(),
        "until": query.until.isoformat(),
        "group_by": query.group_by,
        "data": [one.facts() for one in sums],
        "total": total_of(sums).facts(),
    }


def _period(given: Mapping[str, str]) -> tuple[date, date]:
    """First and last day."""
    if (month := given.get("month")) is not None:
        for other in ("since", "until"):
            if other in given:
                raise InvalidParameter("month", "conflict", other=other)
        if (first := _day(f"{month}-01") if _MONTH.fullmatch(month) else None) is None:
            raise InvalidParameter("month", "not_a_month", value=repr(month))
        return first, next_month(first) - timedelta(days=1)
    until = _given_day(given, "until") or datetime.now(UTC).date()
    since = _given_day(given, "since") or until.replace(day=1)
    if since > until:
        raise InvalidParameter("since", "not_after", other="until")
    return since, until


def _given_day(given: Mapping[str, str], param: str) -> date | None:
    if (text := given.get(param)) is None:
        return None
    if (day := _day(text)) is None:
        raise InvalidParameter(param, "not_a_day", value=repr(text))
    return day


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if _DAY.fullmatch(text) else None
    except ValueError:  # as the 31st of November
        return None


def _groups(arguments: Arguments) -> tuple[str, ...]:
    if "group_by" not in arguments:
        return USUAL_GROUPS
    names = tuple(name for value in arguments["group_by"] for name in value.split(",") if name)
    for name in names:
        check_choice("group_by", name, GROUPS)
    if len(set(names)) < len(names):
        raise InvalidParameter("group_by", "duplicate", value=", ".join(names))
    return names
