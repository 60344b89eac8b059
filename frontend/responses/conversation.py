"""What a response is made from: the stored conversation, this request's input, cut to fit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf

from frontend.catalog import Catalog
from frontend.engine import Engine
from frontend.errors import (
    ContextLengthExceeded,
    InvalidParameter,
    InvalidRequest,
    PreviousResponseNotFound,
)
from frontend.prepare import PreparedRequest, prepare_chat
from frontend.protocol.chat_messages import ChatMessage
from frontend.protocol.response_items import (
    Item,
    Reference,
    chat_messages,
    check_call_outputs,
    input_items,
)
from frontend.protocol.response_request import ResponseRequest, own_name
from frontend.store.own_responses import OwnResponses
from frontend.store.responses import StoredResponse

# `truncation: auto` leaves this much of the context to an answer of no given length.
ANSWER_SHARE = 0.25
TURN_STARTERS = ("user", "system", "developer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A request with its place in a conversation."""

    body: ResponseRequest
    earlier: list[Item]  # the inputs and outputs that it builds on
    own: list[Item]  # what it brings


async def read_turn(body: ResponseRequest, stored: OwnResponses) -> Turn:
    """
    Raises:
        InvalidParameter: names the field.
        PreviousResponseNotFound: some of the conversation is not there any more.
    """
    assert body.input is not None, "check() comes first"
    given = input_items(body.input)
    earlier = await _earlier_items(body.previous_response_id, stored)
    own = await _resolve(given, stored)
    check_call_outputs([*earlier, *own])
    return Turn(body=body, earlier=earlier, own=own)


async def stored_items(response: StoredResponse, stored: OwnResponses) -> list[Item]:
    """All items that a stored response was made from, oldest first."""
    return [*await _earlier_items(response.previous_response_id, stored), *response.input]


async def prepare_turn(turn: Turn, *, catalog: Catalog, engine: Engine) -> PreparedRequest:
    """
    Raises:
        InvalidRequest: names the field, as /v1/responses calls it.
        ModelNotFound, ModelNotLoaded, EngineUnavailable: nothing can serve it now.
    """
    messages = chat_messages([*turn.earlier, *turn.own])

    async def prepare(num_dropped: int) -> PreparedRequest:
        return await prepare_chat(
            turn.body.chat_request(messages[num_dropped:]),
            catalog=catalog,
            engine=engine,
            prompt_param="input",
            id_prefix="resp_",
        )

    try:
        if not turn.body.is_truncated:
            return await prepare(0)
        return await _prepare_cut(prepare, _cuts(messages), turn.body.max_output_tokens)
    except InvalidRequest as exc:
        if exc.param is not None:
            exc.rename(own_name(exc.param))
        raise


async def _prepare_cut(
    prepare: Callable[[int], Awaitable[PreparedRequest]],
    cuts: list[int],
    max_output_tokens: int | None,
) -> PreparedRequest:
    """Drop as few messages as leave room for an answer, or as many as may go.

    Args:
        cuts: how many may be dropped, in rising order, none first.
    """

    async def attempt(num_dropped: int) -> PreparedRequest | None:
        try:
            prepared = await prepare(num_dropped)
        except ContextLengthExceeded:
            return None
        return prepared if _has_room(prepared, max_output_tokens) else None

    if whole := await attempt(cuts[0]):
        return whole
    found = None
    low, high = 1, len(cuts) - 1
    while low < high:
        middle = (low + high) // 2
        if shorter := await attempt(cuts[middle]):
            found, high = shorter, middle
        else:
            low = middle + 1
    return found or await prepare(cuts[-1])


async def _earlier_items(response_id: str | None, stored: OwnResponses) -> list[Item]:
    if response_id is None:
        return []
    chain = await stored.chain(response_id)
    missing = chain[0].previous_response_id if chain else response_id
    if missing is not None:
        raise PreviousResponseNotFound(param="previous_response_id", response_id=missing)
    if chain[-1].is_active:
        raise InvalidParameter("previous_response_id", "previous_response_active")
    return [item for response in chain for item in (*response.input, *response.output)]


async def _resolve(items: list[Item | Reference], stored: OwnResponses) -> list[Item]:
    """Put the stored items in the place of the references to them."""
    ids = {item.id for item in items if isinstance(item, Reference)}
    found = await stored.find_items(ids) if ids else {}
    resolved = []
    for i, item in enumerate(items):
        if not isinstance(item, Reference):
            resolved.append(item)
        elif item.id in found:
            resolved.append(found[item.id])
        else:
            raise InvalidParameter(f"input[{i}].id", "item_not_found", item_id=item.id)
    return resolved


def _cuts(messages: list[ChatMessage]) -> list[int]:
    """How many messages may go: never a call without its outputs, never the last message."""
    return sorted({0, *(i for i, message in enumerate(messages) if message.role in TURN_STARTERS)})


def _has_room(prepared: PreparedRequest, max_output_tokens: int | None) -> bool:
    generation = prepared.generation
    context = len(generation.prompt_token_ids) + generation.max_new_tokens
    wanted = min(max_output_tokens or inf, context * ANSWER_SHARE)
    return generation.max_new_tokens >= wanted
