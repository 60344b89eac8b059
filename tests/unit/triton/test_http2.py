from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontend.triton import frames
from frontend.triton.grpc_status import GrpcCode, GrpcStatus
from frontend.triton.http2_stream import MAX_MESSAGE_BYTES, STREAM_WINDOW
from tests.unit.triton.wire import Frame, Peer, RecordingSink, data_frame, request_headers

OK = GrpcStatus(GrpcCode.OK)


@pytest.fixture
async def peer() -> Peer:
    peer = Peer()
    peer.settle()
    return peer


def of_type(sent: list[Frame], frame_type: int) -> list[Frame]:
    return [one for one in sent if one.type == frame_type]


def body(sent: list[Frame], stream_id: int = 1) -> bytes:
    parts = [one for one in of_type(sent, frames.DATA) if one.stream_id == stream_id]
    return b"".join(one.payload for one in parts)


async def test_connection_is_ready_with_the_servers_settings() -> None:
    peer = Peer()
    assert not peer.connection.ready.done()
    peer.receive(frames.settings_frame({}))
    assert peer.connection.ready.done()
    assert peer.sent()[-1] == Frame(frames.SETTINGS, frames.ACK, 0, b"")


async def test_call_is_headers_and_one_message(peer: Peer) -> None:
    peer.open(b"hello")
    headers, data = peer.sent()
    assert request_headers(headers.payload) == {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/svc/Method",
        ":authority": "test",
        "te": "trailers",
        "content-type": "application/grpc",
        "user-agent": "inflight",
        "grpc-accept-encoding": "identity",
    }
    assert data == Frame(frames.DATA, frames.END_STREAM, 1, b"\0\0\0\0\5hello")


async def test_messages_of_one_read_are_delivered_at_once(peer: Peer) -> None:
    first, second = peer.open(), peer.open()
    peer.receive(
        peer.response_headers(1)
        + data_frame(1, b"a")
        + data_frame(3, b"x")
        + data_frame(1, b"b", b"c")
    )
    assert first.deliveries == [[b"a", b"b", b"c"]]
    assert second.deliveries == [[b"x"]]


async def test_messages_come_before_the_status(peer: Peer) -> None:
    sink = peer.open()
    peer.receive(peer.response_headers() + data_frame(1, b"a") + peer.trailers())
    assert sink.messages == [b"a"]
    assert sink.status == OK
    assert peer.connection.num_streams == 0
    assert of_type(peer.sent(), frames.RST_STREAM) == []


def conversation(peer: Peer) -> bytes:
    """What a server may send on three streams, with everything that frames allow."""
    padded = b"\x03" + frames.grpc_message(b"padded") + b"\0\0\0"
    block = peer.block([("grpc-status", "5"), ("grpc-message", "no%20caf%C3%A9 %zz")])
    return (
        peer.response_headers(1)
        + data_frame(1, b"one", b"", b"two")
        + frames.frame(frames.PING, 0, 0, b"12345678")
        + frames.frame(frames.DATA, frames.PADDED, 1, padded)
        + frames.frame(99, 0xFF, 7, b"unknown type")
        + frames.frame(frames.DATA, 0, 3, frames.grpc_message(b"halves")[:7])
        + frames.frame(frames.DATA, 0, 3, frames.grpc_message(b"halves")[7:])
        + frames.frame(frames.PRIORITY, 0, 3, b"\0\0\0\0\0")
        + frames.frame(frames.DATA, 0, 1, b"")
        + frames.window_update_frame(0, 10)
        + frames.frame(
            frames.HEADERS,
            frames.END_STREAM | frames.HAS_PRIORITY | frames.PADDED,
            1,
            b"\x02\0\0\0\0\7" + block[:3] + b"\0\0",
        )
        + frames.frame(frames.CONTINUATION, 0, 1, block[3:9])
        + frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, block[9:])
        + frames.rst_stream_frame(5, frames.REFUSED_STREAM)
        + peer.trailers(3)
    )


def check_conversation(sinks: list[RecordingSink]) -> None:
    assert sinks[0].messages == [b"one", b"", b"two", b"padded"]
    assert sinks[0].status == GrpcStatus(GrpcCode.NOT_FOUND, "no café %zz")
    assert sinks[1].messages == [b"halves"]
    assert sinks[1].status == OK
    assert sinks[2].status is not None
    assert sinks[2].status.code is GrpcCode.UNAVAILABLE


async def test_every_cut_of_the_bytes_means_the_same() -> None:
    length = len(conversation(Peer()))
    for cut in range(length + 1):
        peer = Peer()
        peer.settle()
        sinks = [peer.open() for _ in range(3)]
        data = conversation(peer)
        peer.receive(data[:cut])
        peer.receive(data[cut:])
        check_conversation(sinks)


async def test_single_bytes_mean_the_same(peer: Peer) -> None:
    sinks = [peer.open() for _ in range(3)]
    for byte in conversation(peer):
        peer.receive(bytes([byte]))
    check_conversation(sinks)
    assert Frame(frames.PING, frames.ACK, 0, b"12345678") in peer.sent()


@settings(max_examples=200)
@given(
    messages=st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=400)), max_size=30),
    chunk_bytes=st.integers(1, 60),
    cut_bytes=st.integers(1, 200),
)
def test_any_framing_of_any_messages_arrives(
    messages: list[tuple[int, bytes]], chunk_bytes: int, cut_bytes: int
) -> None:
    async def run() -> None:
        peer = Peer()
        peer.settle()
        sinks = [peer.open() for _ in range(3)]
        data = b""
        for index, message in messages:
            framed = frames.grpc_message(message)
            for start in range(0, len(framed), chunk_bytes):
                part = framed[start : start + chunk_bytes]
                data += frames.frame(frames.DATA, 0, 2 * index + 1, part)
        for start in range(0, len(data), cut_bytes):
            peer.receive(data[start : start + cut_bytes])
        for index, sink in enumerate(sinks):
            assert sink.messages == [message for i, message in messages if i == index]

    asyncio.run(run())


@settings(max_examples=300)
@given(
    parts=st.lists(
        st.tuples(
            st.integers(0, 12),
            st.integers(0, 255),
            st.integers(0, 2**32 - 1) | st.integers(0, 6),
            st.binary(max_size=40),
        ),
        max_size=20,
    )
)
def test_random_frames_never_raise_and_every_sink_ends(
    parts: list[tuple[int, int, int, bytes]],
) -> None:
    async def run() -> None:
        peer = Peer()
        peer.settle()
        sinks = [peer.open() for _ in range(3)]
        for frame_type, flags, stream_id, payload in parts:
            peer.receive(frames.frame(frame_type, flags, stream_id, payload))
        peer.connection.connection_lost(None)
        assert all(sink.status is not None for sink in sinks)

    asyncio.run(run())


@settings(max_examples=200)
@given(data=st.binary(max_size=300))
def test_random_bytes_never_raise(data: bytes) -> None:
    async def run() -> None:
        peer = Peer()
        sink = peer.open()
        peer.receive(data)
        peer.connection.connection_lost(None)
        assert sink.status is not None

    asyncio.run(run())


@pytest.mark.parametrize(
    ("data", "error_code"),
    [
        (b"\xff\xff\xff\0\0\0\0\0\1", frames.FRAME_SIZE_ERROR),
        (frames.frame(frames.DATA, 0, 9, b"12345678"), frames.PROTOCOL_ERROR),
        (frames.frame(frames.DATA, 0, 0, b"12345678"), frames.PROTOCOL_ERROR),
        (frames.frame(frames.DATA, frames.PADDED, 1, b"\x09123"), frames.PROTOCOL_ERROR),
        (frames.frame(frames.DATA, frames.PADDED, 1, b""), frames.PROTOCOL_ERROR),
        (frames.frame(frames.HEADERS, frames.END_HEADERS, 1, b"\xff\xff"), 9),
        (frames.frame(frames.HEADERS, frames.HAS_PRIORITY, 1, b"1"), frames.FRAME_SIZE_ERROR),
        (
            frames.frame(frames.HEADERS, 0, 1) + data_frame(1, b"between"),
            frames.PROTOCOL_ERROR,
        ),
        (
            frames.frame(frames.HEADERS, 0, 1) + frames.frame(frames.CONTINUATION, 0, 3),
            frames.PROTOCOL_ERROR,
        ),
        (frames.frame(frames.CONTINUATION, 4, 1), frames.PROTOCOL_ERROR),
        (
            frames.frame(frames.HEADERS, 0, 1)
            + 20 * frames.frame(frames.CONTINUATION, 0, 1, b"x" * 16_384),
            frames.ENHANCE_YOUR_CALM,
        ),
        (frames.frame(frames.SETTINGS, 0, 0, b"12345"), frames.FRAME_SIZE_ERROR),
        (frames.frame(frames.SETTINGS, 0, 1), frames.PROTOCOL_ERROR),
        (frames.settings_frame({frames.MAX_FRAME_SIZE: 1}), frames.PROTOCOL_ERROR),
        (frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 2**31}), frames.FLOW_CONTROL_ERROR),
        (frames.frame(frames.PING, 0, 0, b"1"), frames.FRAME_SIZE_ERROR),
        (frames.frame(frames.RST_STREAM, 0, 1, b"1"), frames.FRAME_SIZE_ERROR),
        (frames.frame(frames.GOAWAY, 0, 0, b"1"), frames.FRAME_SIZE_ERROR),
        (frames.frame(frames.WINDOW_UPDATE, 0, 1, b"1"), frames.FRAME_SIZE_ERROR),
        (frames.window_update_frame(0, 0), frames.PROTOCOL_ERROR),
        (frames.window_update_frame(0, 2**31 - 1), frames.FLOW_CONTROL_ERROR),
        (frames.window_update_frame(1, 2**31 - 1), frames.FLOW_CONTROL_ERROR),
        (frames.frame(frames.PUSH_PROMISE, 4, 1, b"1234"), frames.PROTOCOL_ERROR),
    ],
)
async def test_broken_protocol_ends_the_connection(
    peer: Peer, data: bytes, error_code: int
) -> None:
    sink = peer.open()
    peer.sent()
    peer.receive(data)
    goaway = of_type(peer.sent(), frames.GOAWAY)[0]
    assert int.from_bytes(goaway.payload[4:8], "big") == error_code
    assert sink.status is not None
    assert sink.status.code is GrpcCode.UNAVAILABLE
    assert peer.transport.is_closed
    assert not peer.connection.is_usable
    peer.receive(b"more")  # is of no use, and does no harm


# ---- sending


async def test_large_message_waits_for_the_windows(peer: Peer) -> None:
    message = bytes(range(256)) * 1000
    framed = frames.grpc_message(message)
    peer.open(message)
    sent = peer.sent()
    assert all(len(one.payload) <= 16_384 for one in sent)
    assert body(sent) == framed[:65_535]
    peer.receive(frames.window_update_frame(1, 10**6))
    assert peer.sent() == []  # the connection's window is still closed
    peer.receive(frames.window_update_frame(0, 100_000))
    middle = body(peer.sent())
    assert middle == framed[65_535:165_535]
    peer.receive(frames.window_update_frame(0, 10**6))
    last = peer.sent()
    assert body(last) == framed[165_535:]
    assert last[-1].flags == frames.END_STREAM


async def test_streams_take_turns_when_the_connection_opens(peer: Peer) -> None:
    for _ in range(2):
        peer.open(b"x" * 100_000)
    peer.sent()
    for stream_id in (1, 3):
        peer.receive(frames.window_update_frame(stream_id, 10**6))
    peer.receive(frames.window_update_frame(0, 10**6))
    order = [one.stream_id for one in of_type(peer.sent(), frames.DATA)]
    assert order[:4] in ([1, 3, 1, 3], [3, 1, 3, 1])


async def test_larger_frames_are_used_when_the_server_takes_them() -> None:
    peer = Peer()
    peer.settle({frames.MAX_FRAME_SIZE: 2**20, frames.INITIAL_WINDOW_SIZE: 2**20})
    peer.receive(frames.window_update_frame(0, 2**20))
    peer.open(b"x" * 500_000)
    assert [len(one.payload) for one in of_type(peer.sent(), frames.DATA)] == [500_005]


async def test_change_of_the_initial_window_reaches_open_streams(peer: Peer) -> None:
    peer.receive(frames.window_update_frame(0, 10**6))
    peer.open(b"x" * 100_000)
    assert len(body(peer.sent())) == 65_535
    peer.receive(frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 10}))
    peer.receive(frames.window_update_frame(1, 60_000))
    assert body(peer.sent()) == b""  # the window was negative: 10 - 65535 + 60000
    peer.receive(frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 10**6}))
    assert len(body(peer.sent())) == 100_005 - 65_535


async def test_full_socket_holds_back_what_is_sent(peer: Peer) -> None:
    peer.connection.pause_writing()
    peer.open(b"hello")
    assert of_type(peer.sent(), frames.DATA) == []
    peer.connection.resume_writing()
    assert body(peer.sent()) == frames.grpc_message(b"hello")


async def test_several_messages_can_be_sent(peer: Peer) -> None:
    sink = RecordingSink()
    block = frames.request_header_block("/svc/Method", authority="test", scheme="http")
    stream = peer.connection.open(block, sink, b"one", end=False)
    stream.send(b"two")
    stream.send(b"three", end=True)
    sent = peer.sent()
    assert body(sent) == b"".join(map(frames.grpc_message, (b"one", b"two", b"three")))
    assert [one.flags for one in of_type(sent, frames.DATA)] == [0, 0, frames.END_STREAM]


# ---- receiving


async def test_peer_stops_at_the_window_until_the_reader_releases(peer: Peer) -> None:
    sink = RecordingSink()
    stream = peer.connection.open(b"", sink, b"x")
    peer.sent()
    message = b"x" * 1019  # with its prefix 1024 bytes
    for _ in range(STREAM_WINDOW // 1024):
        peer.receive(data_frame(1, message))
    assert of_type(peer.sent(), frames.WINDOW_UPDATE) == []
    stream.release()
    update = of_type(peer.sent(), frames.WINDOW_UPDATE)[0]
    assert (update.stream_id, int.from_bytes(update.payload, "big")) == (1, STREAM_WINDOW)
    stream.release()
    assert peer.sent() == []


async def test_peer_that_ignores_the_window_is_cut_off(peer: Peer) -> None:
    sink = peer.open()
    for _ in range(STREAM_WINDOW // 1024 + 1):
        peer.receive(data_frame(1, b"x" * 1019))
    assert sink.status is not None
    assert peer.transport.is_closed


async def test_message_larger_than_the_window_gets_what_it_needs(peer: Peer) -> None:
    sink = peer.open()
    framed = frames.grpc_message(b"x" * (4 * STREAM_WINDOW))
    window = STREAM_WINDOW
    for start in range(0, len(framed), 16_384):
        part = framed[start : start + 16_384]
        window -= len(part)
        assert window >= 0
        peer.receive(frames.frame(frames.DATA, 0, 1, part))
        for update in of_type(peer.sent(), frames.WINDOW_UPDATE):
            window += int.from_bytes(update.payload, "big") if update.stream_id else 0
    assert [len(message) for message in sink.messages] == [4 * STREAM_WINDOW]


async def test_connection_window_is_given_back(peer: Peer) -> None:
    sink = RecordingSink()
    stream = peer.connection.open(b"", sink, b"x")
    peer.sent()
    updates = 0
    for _ in range(2 * 2**20 // 1024 * 9):
        peer.receive(data_frame(1, b"x" * 1019))
        stream.release()
    for one in of_type(peer.sent(), frames.WINDOW_UPDATE):
        updates += one.stream_id == 0
    assert updates == 1


@pytest.mark.parametrize(
    ("prefix", "code"),
    [
        (b"\1\0\0\0\5", GrpcCode.INTERNAL),
        (b"\0" + (MAX_MESSAGE_BYTES + 1).to_bytes(4, "big"), GrpcCode.RESOURCE_EXHAUSTED),
    ],
)
async def test_message_of_no_use_resets_its_stream_only(
    peer: Peer, prefix: bytes, code: GrpcCode
) -> None:
    sink, other = peer.open(), peer.open()
    peer.sent()
    peer.receive(frames.frame(frames.DATA, 0, 1, frames.grpc_message(b"good") + prefix + b"12345"))
    assert sink.messages == [b"good"]
    assert sink.status is not None
    assert sink.status.code is code
    assert of_type(peer.sent(), frames.RST_STREAM)[0].stream_id == 1
    assert other.status is None


# ---- ends


async def test_cancel_resets_the_stream_and_silences_it(peer: Peer) -> None:
    sink = RecordingSink()
    stream = peer.connection.open(b"", sink, b"x")
    peer.sent()
    stream.cancel()
    stream.cancel()
    assert peer.sent() == [Frame(frames.RST_STREAM, 0, 1, b"\0\0\0\x08")]
    peer.receive(peer.response_headers() + data_frame(1, b"late") + peer.trailers())
    assert sink.deliveries == []
    assert sink.status is None


async def test_answer_before_the_whole_request_was_sent_resets_it(peer: Peer) -> None:
    sink = peer.open(b"x" * 100_000)
    peer.sent()
    peer.receive(peer.trailers(1, 8))
    assert sink.status == GrpcStatus(GrpcCode.RESOURCE_EXHAUSTED)
    assert of_type(peer.sent(), frames.RST_STREAM)[0].stream_id == 1
    peer.receive(frames.window_update_frame(0, 10**6))
    assert peer.sent() == []


async def test_goaway_ends_streams_above_its_id_and_lets_others_finish(peer: Peer) -> None:
    first, second = peer.open(), peer.open()
    peer.receive(frames.goaway_frame(1, frames.NO_ERROR, b"max_age"))
    assert second.status is not None
    assert second.status.code is GrpcCode.UNAVAILABLE
    assert "max_age" in second.status.message
    assert not first.deliveries
    assert not peer.connection.is_usable
    peer.receive(peer.response_headers() + data_frame(1, b"a") + peer.trailers())
    assert first.messages == [b"a"]
    assert first.status == OK
    assert peer.transport.is_closed


async def test_lost_connection_ends_all_streams(peer: Peer) -> None:
    sinks = [peer.open(), peer.open()]
    peer.connection.connection_lost(ConnectionResetError("reset"))
    for sink in sinks:
        assert sink.status is not None
        assert sink.status.code is GrpcCode.UNAVAILABLE
    assert peer.connection.lost.done()
    assert not peer.connection.is_usable


async def test_connection_lost_before_settings_fails_ready() -> None:
    peer = Peer()
    peer.connection.connection_lost(None)
    with pytest.raises(ConnectionError):
        await peer.connection.ready


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([(":status", "503")], GrpcCode.UNAVAILABLE),
        ([(":status", "404")], GrpcCode.UNIMPLEMENTED),
        ([(":status", "418")], GrpcCode.UNKNOWN),
        ([(":status", "200"), ("content-type", "text/html")], GrpcCode.UNKNOWN),
    ],
)
@pytest.mark.parametrize("end", [False, True])
async def test_answer_that_is_no_grpc_ends_the_call(
    peer: Peer, headers: list[tuple[str, str]], code: GrpcCode, end: bool
) -> None:
    sink = peer.open()
    peer.receive(peer.headers(1, headers, end=end))
    assert sink.status is not None
    assert sink.status.code is code


async def test_informational_headers_are_passed_over(peer: Peer) -> None:
    sink = peer.open()
    peer.receive(peer.headers(1, [(":status", "103")]) + peer.response_headers() + peer.trailers())
    assert sink.status == OK


async def test_end_without_a_status_is_an_error(peer: Peer) -> None:
    first, second = peer.open(), peer.open()
    peer.receive(peer.response_headers(1) + data_frame(1, b"a", flags=frames.END_STREAM))
    peer.receive(peer.headers(3, [("x", "y"), ("content-type", "application/grpc")], end=True))
    assert first.status is not None
    assert first.status.code is GrpcCode.INTERNAL
    assert second.status is not None
    assert second.status.code is GrpcCode.UNKNOWN


@pytest.mark.parametrize("number", ["99", "x"])
async def test_unknown_status_number_is_unknown(peer: Peer, number: str) -> None:
    sink = peer.open()
    peer.receive(peer.headers(1, [("grpc-status", number)], end=True))
    assert sink.status == GrpcStatus(GrpcCode.UNKNOWN)


async def test_streams_are_limited_to_what_the_server_allows() -> None:
    peer = Peer()
    peer.settle({frames.MAX_CONCURRENT_STREAMS: 1})
    assert peer.connection.is_usable
    peer.open()
    assert not peer.connection.is_usable
    peer.receive(peer.trailers())
    assert peer.connection.is_usable


async def test_failing_sink_harms_no_other_stream(peer: Peer) -> None:
    class FailingSink(RecordingSink):
        def on_messages(self, messages: list[bytes]) -> None:
            raise RuntimeError("broken")

    failing = FailingSink()
    peer.connection.open(b"", failing, b"x")
    other = peer.open()
    peer.receive(data_frame(1, b"a") + data_frame(3, b"b"))
    assert failing.status is not None
    assert failing.status.code is GrpcCode.INTERNAL
    assert other.messages == [b"b"]


async def test_close_resets_streams_and_waits_for_the_peer(peer: Peer) -> None:
    sink = peer.open()
    peer.sent()
    closing = asyncio.create_task(peer.connection.close())
    await asyncio.sleep(0)
    sent = peer.sent()
    assert [one.type for one in sent] == [frames.RST_STREAM, frames.PING]
    assert not peer.transport.is_closed
    peer.receive(frames.frame(frames.PING, frames.ACK, 0, sent[1].payload))
    await asyncio.sleep(0.01)
    assert peer.transport.is_closed
    peer.connection.connection_lost(None)
    await closing
    assert sink.status is not None
    assert sink.status.code is GrpcCode.CANCELLED


# ---- keepalive


async def test_silent_peer_with_a_stream_is_pinged_and_given_up() -> None:
    peer = Peer(keepalive_interval_s=0.02, ping_timeout_s=0.05)
    peer.settle()
    await asyncio.sleep(0.05)
    assert of_type(peer.sent(), frames.PING) == []  # nobody waits for anything
    peer.open()
    await asyncio.sleep(0.05)
    assert len(of_type(peer.sent(), frames.PING)) == 1
    await asyncio.sleep(0.06)
    assert peer.transport.is_aborted
    peer.connection.connection_lost(None)


async def test_answered_ping_keeps_the_connection() -> None:
    peer = Peer(keepalive_interval_s=0.02, ping_timeout_s=0.03)
    peer.settle()
    peer.open()
    for _ in range(12):
        await asyncio.sleep(0.01)
        for ping in of_type(peer.sent(), frames.PING):
            peer.receive(frames.frame(frames.PING, frames.ACK, 0, ping.payload))
    assert not peer.transport.is_closed
    peer.connection.connection_lost(None)
