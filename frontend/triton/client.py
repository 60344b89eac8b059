"""The Engine over Triton's ModelStreamInfer: one gRPC stream a request."""

from __future__ import annotations

import asyncio
import itertools
import logging
import ssl
from array import array
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

from frontend.errors import AdapterEvicted, ModelChanged, ModelNotLoaded, ServingError
from frontend.triton.adapters import AdapterWeights, SentAdapters
from frontend.triton.capabilities import Capabilities
from frontend.triton.channel import Channel
from frontend.triton.embeddings import embed
from frontend.triton.failures import error_of_status
from frontend.triton.grpc_status import GrpcError, GrpcStatus
from frontend.triton.http2_stream import Http2Stream
from frontend.triton.responses import ResponseDecoder
from frontend.triton.rpc import STREAM_INFER, TritonRpc
from frontend.triton.tensors import encode_request, encode_stop
from frontend.types import GenerationRequest, LoadedModel, ServedVersion, TokenChunk

logger = logging.getLogger(__name__)

# What a request that has ended or was stopped gets until its stream is reset.
DRAIN_TIMEOUT_S = 2.0
MAX_ATTEMPTS = 100  # Triton serves a new version a moment before it names it to all who ask
RESEND_PAUSE_S = 0.05


@dataclass(slots=True, kw_only=True)
class _Attempt:
    """A request as it is sent, perhaps not for the first time."""

    request: GenerationRequest
    model: LoadedModel
    weights: AdapterWeights | None
    number: int
    message: bytes = b""
    has_begun: bool = False


class TritonClient:
    """Implements `frontend.engine.Engine`. Each worker process owns one, in its event loop."""

    def __init__(
        self,
        url: str,
        *,
        metadata: tuple[tuple[str, str], ...] = (),
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._channel = Channel(url, metadata=metadata, ssl_context=ssl_context)
        self.rpc = TritonRpc(self._channel)
        self.capabilities = Capabilities(self.rpc)
        self._adapters = SentAdapters()
        self._stops: set[asyncio.Task[None]] = set()  # a task that nobody holds may vanish

    async def loaded_model(self, name: str, *, is_asked_anew: bool = False) -> LoadedModel:
        if is_asked_anew:
            self.capabilities.invalidate(name)
        return await self.capabilities.get(name)

    async def embed(
        self,
        model: str,
        rows: Sequence[Sequence[int]],
        *,
        prepared_for: ServedVersion | None = None,
    ) -> list[array[float]]:
        loaded = await self.capabilities.get(model)
        try:
            return await embed(self.rpc, loaded, rows, prepared_for=prepared_for)
        except ModelNotLoaded:
            self.capabilities.invalidate(model)
            raise

    async def ready(self) -> bool:
        """Whether Triton answers that it is ready."""
        try:
            return await self.rpc.server_ready()
        except ServingError:
            return False

    async def close(self) -> None:
        for task in self._stops:
            task.cancel()
        await asyncio.gather(*self._stops, return_exceptions=True)
        await self._channel.close()

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[TokenChunk, None]:
        """Yield what arrives; messages that arrived together are one chunk a sequence.

        Raises:
            ServingError: the request was refused, has failed, or Triton is gone.
        """
        for number in itertools.count(1):
            attempt = await self._attempt(request, number)
            decoder, inbox = ResponseDecoder(attempt.request, attempt.model), _Inbox()
            stream: Http2Stream | None = None
            try:
                stream = await self._channel.open(STREAM_INFER, inbox, attempt.message)
                while not decoder.is_finished:
                    for chunk in decoder.push(await inbox.take()):
                        if not attempt.has_begun:
                            self._begin(attempt)
                        yield chunk
                    stream.release()
                return
            except (GeneratorExit, asyncio.CancelledError):
                if stream is not None and not decoder.is_finished:
                    self._stop_soon(attempt.request)
                raise
            except (GrpcError, ServingError) as exc:
                self._fail_unless_resent(attempt, exc)
            finally:
                self._end(attempt, stream)
            await asyncio.sleep(RESEND_PAUSE_S)

    async def _attempt(self, request: GenerationRequest, number: int) -> _Attempt:
        model = await self.capabilities.get(request.model)
        request = _moved(request, model)
        weights = await self._adapters.weights_for(request, model)
        attempt = _Attempt(request=request, model=model, weights=weights, number=number)
        try:
            attempt.message = encode_request(request, model, weights)
        except BaseException:  # who waits for the weights must not wait for ever
            self._end(attempt, None)
            raise
        return attempt

    def _begin(self, attempt: _Attempt) -> None:
        attempt.has_begun = True
        if attempt.weights is not None:
            self._adapters.has_sent(attempt.request, attempt.model)
            self._adapters.settle(attempt.request, attempt.model)

    def _fail_unless_resent(self, attempt: _Attempt, exc: GrpcError | ServingError) -> None:
        """Return if the request may be sent again, for nothing of its answer has come.

        Raises:
            ServingError: the failure, as the client is told it.
        """
        request = attempt.request
        self.capabilities.invalidate(request.model)
        error = error_of_status(exc.status, request.model) if isinstance(exc, GrpcError) else exc
        if not attempt.has_begun and attempt.number < MAX_ATTEMPTS:
            if isinstance(error, AdapterEvicted) and attempt.weights is None:
                self._adapters.forget(request, attempt.model)
                return
            if isinstance(error, ModelNotLoaded) and request.prepared_for is not None:
                if request.may_move:
                    return
                error = ModelChanged(model=request.model)  # or it was unloaded; who asks hears it
        if error is not exc:
            raise error from exc
        raise error

    def _end(self, attempt: _Attempt, stream: Http2Stream | None) -> None:
        if attempt.weights is not None and not attempt.has_begun:
            self._adapters.settle(attempt.request, attempt.model)
        if stream is not None:
            _drain(stream)

    def _stop_soon(self, request: GenerationRequest) -> None:
        """End a request by its id.

        Engines look for cancelled streams now and then only, as that costs them a round trip for
        each running request, but hear a stop at once.
        """
        task = asyncio.ensure_future(self._stop(request))
        self._stops.add(task)
        task.add_done_callback(self._stops.discard)

    async def _stop(self, request: GenerationRequest) -> None:
        inbox = _Inbox()
        try:
            stream = await self._channel.open(STREAM_INFER, inbox, encode_stop(request))
            try:
                async with asyncio.timeout(DRAIN_TIMEOUT_S):
                    while True:
                        await inbox.take()
            finally:
                stream.cancel()
        except (GrpcError, TimeoutError) as exc:  # it has answered, or Triton has gone
            logger.debug("stop request ended", extra={"reason": str(exc)})


def _moved(request: GenerationRequest, model: LoadedModel) -> GenerationRequest:
    """The request for what the engine serves now.

    Raises:
        ModelChanged: it was prepared for another version, and has to be prepared for this one.
    """
    made_for, served = request.prepared_for, model.served
    if made_for is None or made_for == served:
        return request
    reads_the_same = served is not None and served.tokenizer_hash == made_for.tokenizer_hash
    if not (request.may_move and reads_the_same):
        raise ModelChanged(model=request.model)
    return replace(request, prepared_for=served)


def _drain(stream: Http2Stream) -> None:
    """Read a stream to its end, which comes at once; one that goes on is reset after a while.

    Triton 2.51 may never let go of a request whose stream was reset while its last response was on
    the way: its model then cannot be unloaded. And a reset counts as a cancelled request.
    """
    stream.sink = _Drain(stream)
    stream.release()
    asyncio.get_running_loop().call_later(DRAIN_TIMEOUT_S, stream.cancel)


class _Drain:
    """A sink that throws away what a request still sends after its client has left."""

    def __init__(self, stream: Http2Stream) -> None:
        self._stream = stream

    def on_messages(self, messages: list[bytes]) -> None:
        self._stream.release()

    def on_end(self, status: GrpcStatus) -> None:
        pass


class _Inbox:
    """A sink that holds what has arrived until it is taken; bounded by the stream's window."""

    def __init__(self) -> None:
        self._messages: list[bytes] = []
        self._status: GrpcStatus | None = None
        self._waiter: asyncio.Future[None] | None = None

    def on_messages(self, messages: list[bytes]) -> None:
        self._messages += messages
        self._wake()

    def on_end(self, status: GrpcStatus) -> None:
        self._status = status
        self._wake()

    async def take(self) -> list[bytes]:
        """Wait for messages and return all there are.

        Raises:
            GrpcError: the stream has ended, and everything before its end was taken.
        """
        if not self._messages and self._status is None:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._messages:
            messages, self._messages = self._messages, []
            return messages
        assert self._status is not None
        raise GrpcError(self._status)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
