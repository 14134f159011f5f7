"""A proxy in front of the API server that does to requests what networks and servers do.

It speaks TLS on both sides, streams watches, and passes the caller's token on, so that the API
server decides about it as always.
"""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import aiohttp
import msgspec
from aiohttp import web

from control_plane.plane import ControlPlane
from devstack.ports import free_port

_HOP_BY_HOP: Final = frozenset({"connection", "content-length", "host", "transfer-encoding"})
_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_START_S: Final = 20.0


class Request(msgspec.Struct, frozen=True):
    """A request as faults see it."""

    method: str
    path: str
    query: dict[str, str]
    token: str

    @property
    def is_write(self) -> bool:
        """Whether the request changes an object."""
        return self.method in _WRITES

    @property
    def is_watch(self) -> bool:
        """Whether the answer is a stream without an end."""
        return self.query.get("watch") == "true"


class Refuse(msgspec.Struct, frozen=True):
    """Answer in the API server's place; the request does not get there.

    A watch gets a 410 as an event after it has begun, or as its answer with `at_once`.
    """

    status: int
    retry_after_s: int | None = None
    at_once: bool = False


class DropReply(msgspec.Struct, frozen=True):
    """Forward the request, call `then`, and close the connection without an answer."""

    then: Callable[[], None] = lambda: None


class Hang(msgspec.Struct, frozen=True):
    """Take the request and say nothing: a watch that stays silent, a black hole."""


Fault = Refuse | DropReply | Hang
Chooser = Callable[[Request], Fault | None]


def each_once(fault: Fault) -> Chooser:
    """Give a fault to every write the first time it is tried."""
    tried: set[tuple[str, str, str]] = set()

    def choose(request: Request) -> Fault | None:
        write = request.method, request.path, request.query.get("fieldManager", "")
        if not request.is_write or write in tried:
            return None
        tried.add(write)
        return fault

    return choose


class FaultProxy:
    """Runs on a thread of its own between `start` and `stop`."""

    def __init__(self, plane: ControlPlane) -> None:
        self.port, self._plane = free_port(), plane
        self._choose: Chooser = lambda _: None
        self._watching: list[web.Request] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True, name="faults")
        self._listening, self._ending = threading.Event(), asyncio.Event()
        self._healthy = asyncio.Event()

    @property
    def url(self) -> str:
        """The URL under which the operator reaches the API server."""
        return f"https://127.0.0.1:{self.port}"

    @contextmanager
    def with_fault(self, choose: Chooser) -> Iterator[None]:
        """Inject faults; at the end, the connections of hanging requests are closed."""
        self._choose = choose
        self._loop.call_soon_threadsafe(self._healthy.clear)
        try:
            yield
        finally:
            self._choose = lambda _: None
            self._loop.call_soon_threadsafe(self._healthy.set)

    def cut_watches(self) -> None:
        """Close the connection of every watch."""
        self._loop.call_soon_threadsafe(self._cut_watches)

    def start(self) -> None:
        """Start the proxy and wait until it listens."""
        self._thread.start()
        assert self._listening.wait(_START_S)

    def stop(self) -> None:
        """End, with all connections."""
        self._loop.call_soon_threadsafe(self._ending.set)
        self._loop.call_soon_threadsafe(self._healthy.set)
        self._thread.join(_START_S)

    def _cut_watches(self) -> None:
        for watching in self._watching:
            _cut(watching)
        self._watching.clear()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        certificate, key = self._plane.issue("faults", "faults")
        serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        serving.load_cert_chain(certificate, key)
        trusting = ssl.create_default_context(cafile=str(self._plane.authority))
        connector = aiohttp.TCPConnector(ssl=trusting, limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False
        ) as self._session:
            application = web.Application(client_max_size=2**24)
            application.router.add_route("*", "/{path:.*}", self._handle)
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.2)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=serving).start()
            self._listening.set()
            await self._ending.wait()
            await runner.cleanup()

    async def _handle(self, incoming: web.Request) -> web.StreamResponse:
        request = Request(
            incoming.method,
            incoming.path,
            dict(incoming.query),
            incoming.headers.get("Authorization", "").removeprefix("Bearer "),
        )
        if request.is_watch:
            self._watching.append(incoming)
        match self._choose(request):
            case Refuse(410, at_once=False) as refusal if request.is_watch:
                return await _expired(incoming, refusal)
            case Refuse() as refusal:
                return _refused(refusal)
            case Hang():
                if request.is_watch:  # it begins like any other
                    await web.StreamResponse().prepare(incoming)
                await self._healthy.wait()
                return _cut(incoming)
            case DropReply() as fault:
                body = await incoming.read()
                async with self._sent(incoming, body) as answer:
                    await answer.read()
                fault.then()
                return _cut(incoming)
            case _:
                try:
                    return await self._passed_on(incoming, request)
                except (aiohttp.ClientError, ConnectionError):  # one of both sides is gone
                    return _cut(incoming)

    def _sent(self, incoming: web.Request, body: bytes) -> Any:
        headers = {
            name: value
            for name, value in incoming.headers.items()
            if name.lower() not in _HOP_BY_HOP
        }
        url = self._plane.url + incoming.raw_path
        return self._session.request(incoming.method, url, headers=headers, data=body or None)

    async def _passed_on(self, incoming: web.Request, request: Request) -> web.StreamResponse:
        body = await incoming.read()
        async with self._sent(incoming, body) as answer:
            headers = {
                name: value
                for name, value in answer.headers.items()
                if name.lower() not in _HOP_BY_HOP
            }
            outgoing = web.StreamResponse(status=answer.status, headers=headers)
            await outgoing.prepare(incoming)
            async for chunk in answer.content.iter_any():
                if request.is_watch and isinstance(self._choose(request), Hang):
                    await self._healthy.wait()
                    return _cut(incoming)
                await outgoing.write(chunk)
            await outgoing.write_eof()
            return outgoing


async def _expired(incoming: web.Request, refusal: Refuse) -> web.StreamResponse:
    """Report in a running watch that its place has expired, as the API server does."""
    outgoing = web.StreamResponse(headers={"Content-Type": "application/json"})
    await outgoing.prepare(incoming)
    event = {"type": "ERROR", "object": _status(refusal)}
    await outgoing.write(msgspec.json.encode(event) + b"\n")
    await outgoing.write_eof()
    return outgoing


def _refused(refusal: Refuse) -> web.Response:
    wait = {} if refusal.retry_after_s is None else {"Retry-After": str(refusal.retry_after_s)}
    return web.json_response(_status(refusal), status=refusal.status, headers=wait)


def _status(refusal: Refuse) -> dict[str, Any]:
    return {"kind": "Status", "status": "Failure", "message": "injected", "code": refusal.status}


def _cut(incoming: web.Request) -> web.Response:
    """Close the connection; the client gets no answer."""
    if incoming.transport is not None:
        incoming.transport.abort()
    return web.Response()
