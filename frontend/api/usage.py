"""What was used, for those who pay for it and those who rule over it."""

from __future__ import annotations

from sanic import HTTPResponse, Request

from frontend.access.identity import Scope, current_identity
from frontend.api.responses import json_response
from frontend.context import context_of
from frontend.errors import InvalidParameter, PermissionDenied
from frontend.protocol.usage import UsageQuery, encode_usage
from frontend.usage.sums import as_csv

CSV = "text/csv; charset=utf-8"
MAX_SUMS = 10_000  # in one answer


async def get_usage(request: Request) -> HTTPResponse:
    """GET /v1/usage"""
    query = UsageQuery.read(request.get_args(keep_blank_values=True))
    sums = await context_of(request).usage.sums(
        since=query.since,
        until=query.until,
        group_by=query.group_by,
        only=_visible(query),
        limit=MAX_SUMS + 1,
    )
    if len(sums) > MAX_SUMS:
        raise InvalidParameter("group_by", "too_many_sums", maximum=MAX_SUMS)
    if _answer_format(request, query) == "csv":
        return HTTPResponse(as_csv(sums, query.group_by), content_type=CSV)
    return json_response(encode_usage(query, sums))


def _visible(query: UsageQuery) -> dict[str, str | bool]:
    """The query's filters; who does not rule over others sees what they have used themselves.

    Raises:
        PermissionDenied: it asks for another's.
    """
    identity = current_identity.get()
    only = query.filters()
    if not identity.is_admin:
        for name, own in (("tenant", identity.tenant), ("key", identity.principal)):
            if only.setdefault(name, own) != own:
                raise PermissionDenied(scope=Scope.ADMIN)
    return only


def _answer_format(request: Request, query: UsageQuery) -> str:
    if query.format is not None:
        return query.format
    preferred = request.accept.match("application/json", "text/csv")
    return "csv" if preferred.mime == "text/csv" else "json"
