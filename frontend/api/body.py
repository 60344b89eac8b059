"""HTTP request bodies -> typed requests."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TypeVar

import brotli
import msgspec
from sanic import Request

from frontend.context import context_of
from frontend.errors import (
    BodyTooLarge,
    InvalidRequest,
    UnsupportedContentEncoding,
    UnsupportedMediaType,
)
from frontend.protocol.parse import parse_body

MAX_GZIP_MEMBERS = 64  # zlib copies all that is behind each of them

T = TypeVar("T", bound=msgspec.Struct)


def read_body(request: Request, shape: type[T]) -> T:
    """Parse the JSON body; a missing content type is taken for JSON.

    Raises:
        UnsupportedMediaType: another content type.
        UnsupportedContentEncoding, BodyTooLarge: see `inflate`.
        InvalidRequest: see `parse_body`.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type and content_type != "application/json" and not content_type.endswith("+json"):
        raise UnsupportedMediaType(content_type=content_type)
    encoding = request.headers.get("content-encoding", "").strip().lower()
    body = request.body
    if encoding not in ("", "identity"):
        body = inflate(body, encoding, max_bytes=context_of(request).settings.max_body_bytes)
    return parse_body(body, shape)


def inflate(body: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """Undo a content encoding; never makes much more than `max_bytes` of it.

    Raises:
        UnsupportedContentEncoding: none of those in `_INFLATERS`.
        BodyTooLarge: it is larger than `max_bytes` when inflated.
        InvalidRequest: it is not what the encoding says, or ends too early.
    """
    inflater = _INFLATERS.get(encoding)
    if inflater is None:
        known = ", ".join(_INFLATERS)
        raise UnsupportedContentEncoding(encoding=encoding, known=known)
    try:
        inflated, is_whole = inflater(body, max_bytes + 1)
    except (zlib.error, brotli.error) as exc:
        raise InvalidRequest("invalid_encoding", encoding=encoding) from exc
    if len(inflated) > max_bytes:
        raise BodyTooLarge(max_body_bytes=max_bytes)
    if not is_whole:
        raise InvalidRequest("invalid_encoding", encoding=encoding)
    return inflated


def _gunzip(body: bytes, max_bytes: int) -> tuple[bytes, bool]:
    """At most `max_bytes`, and whether the stream had its end; it may have several members."""
    inflated = b""
    for _ in range(MAX_GZIP_MEMBERS):
        member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        inflated += member.decompress(body, max_bytes - len(inflated))
        body = member.unused_data
        if not body or not member.eof or len(inflated) >= max_bytes:
            return inflated, member.eof
    return inflated, False


def _unbrotli(body: bytes, max_bytes: int) -> tuple[bytes, bool]:
    """At most a little more than `max_bytes`, and whether the stream had its end."""
    stream = brotli.Decompressor()
    inflated = stream.process(body, output_buffer_limit=max_bytes)
    while not stream.is_finished() and not stream.can_accept_more_data():
        if len(inflated) >= max_bytes:
            break
        inflated += stream.process(b"", output_buffer_limit=max_bytes - len(inflated))
    return inflated, stream.is_finished()


_INFLATERS: dict[str, Callable[[bytes, int], tuple[bytes, bool]]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "br": _unbrotli,
}
