"""The query parameters of GET /v1/responses/{id} and of its input items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

import msgspec

from frontend.errors import InvalidParameter
from frontend.protocol.limits import between, one_of
from frontend.protocol.parse import check_choice, check_range
from frontend.protocol.response_items import Item
from frontend.protocol.response_request import LOG_PROBS, check_include

MAX_PAGE = 100
Arguments = Mapping[str, Sequence[str]]


class RetrieveQuery(msgspec.Struct, kw_only=True, frozen=True):
    include: list[Annotated[str, one_of(LOG_PROBS)]] = []  # what there is, is always shown
    include_obfuscation: bool = True  # tolerated: nothing here pads its network packets
    stream: bool = False
    starting_after: int = -1  # sequence number of the last event that the client has

    @classmethod
    def read(cls, arguments: Arguments) -> Self:
        """
        Raises:
            InvalidParameter: names the parameter.
        """
        check_include([*arguments.get("include", ()), *arguments.get("include[]", ())])
        stream = _one(arguments, "stream", "false")
        check_choice("stream", stream, ("true", "false"))
        after = _one(arguments, "starting_after", None)
        if after is not None and stream == "false":
            raise InvalidParameter("starting_after", "only_with_stream")
        starting_after = -1 if after is None else _integer("starting_after", after)
        return cls(stream=stream == "true", starting_after=starting_after)


class ItemsQuery(msgspec.Struct, kw_only=True, frozen=True):
    include: list[Annotated[str, one_of(LOG_PROBS)]] = []  # what there is, is always shown
    limit: Annotated[int, between(1, MAX_PAGE)] = 20
    order: Annotated[str, one_of("asc", "desc")] = "desc"
    after: str | None = None  # the id of the last item of the page before

    @classmethod
    def read(cls, arguments: Arguments) -> Self:
        """
        Raises:
            InvalidParameter: names the parameter.
        """
        check_include([*arguments.get("include", ()), *arguments.get("include[]", ())])
        limit = _integer("limit", _one(arguments, "limit", "20"))
        check_range("limit", limit, 1, MAX_PAGE)
        order = _one(arguments, "order", "desc")
        check_choice("order", order, ("asc", "desc"))
        return cls(limit=limit, order=order, after=_one(arguments, "after", None))

    def page(self, items: Sequence[Item]) -> dict[str, Any]:
        """
        Args:
            items: all of them, oldest first.
        """
        ordered = list(items) if self.order == "asc" else list(reversed(items))
        if self.after is not None:
            ids = [item["id"] for item in ordered]
            if self.after not in ids:
                raise InvalidParameter("after", "item_not_found", item_id=self.after)
            ordered = ordered[ids.index(self.after) + 1 :]
        shown = ordered[: self.limit]
        return {
            "object": "list",
            "data": shown,
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
            "has_more": len(ordered) > len(shown),
        }


def _one(arguments: Arguments, name: str, default: Any) -> Any:
    values = arguments.get(name)
    return values[0] if values else default


def _integer(param: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as exc:
        raise InvalidParameter(param, "wrong_type", reason="it is no integer") from exc
