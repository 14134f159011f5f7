"""Scripted faults of a simulator, and the middleware that carries them out."""

import os
import random
import select
import socket
import threading
from typing import Annotated, Any, Final

import falcon
import msgspec
from msgspec import Meta

from upstreams.web import Refusal, answer, body, is_control

HANG_S: Final = 60.0  # longer than any caller's deadline; bounded so that no thread is lost
RESERVED_THREADS: Final = 32  # the control API answers even when every caller is made to wait

Milliseconds = Annotated[int, Meta(ge=0, le=60_000)]
Ratio = Annotated[float, Meta(ge=0, le=1)]


class Faults(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """What goes wrong with business requests. A ratio is the share of requests, 0 to 1."""

    latency_ms: Milliseconds = 0
    jitter_ms: Milliseconds = 0  # added to the latency, uniform from 0
    error_ratio: Ratio = 0.0  # answered with `error_status`, nothing done
    error_status: Annotated[int, Meta(ge=400, le=599)] = 503
    hang_ratio: Ratio = 0.0  # never answered, nothing done
    drop_reply_ratio: Ratio = 0.0  # done, then the connection is closed without an answer
    decline_ratio: Ratio = 0.0  # new captures that are declined
    refund_decline_ratio: Ratio = 0.0  # new refunds that are declined


class Stop:
    """Notify waiting threads that the process ends; a signal handler may call `set`."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def set(self) -> None:
        """End every wait, now and later."""
        os.write(self._write, b"x")

    def wait(self, timeout_s: float, client: socket.socket | None = None) -> None:
        """Wait for the time, the stop, or the end of the client's connection."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        if client is not None:  # not POLLIN: the body of the request may be there unread
            poll.register(client, select.POLLRDHUP)
        poll.poll(timeout_s * 1000)


class Script:
    """The faults in force; replaced as a whole, so that threads read it without a lock."""

    def __init__(self) -> None:
        self.current = Faults()

    def reset(self) -> None:
        """Get nothing wrong any more."""
        self.current = Faults()


class FaultMiddleware:
    """Get business requests wrong as scripted; `/control` and `/livez` always work."""

    def __init__(self, script: Script, stop: Stop, threads: int) -> None:
        self._script, self._stop = script, stop
        self._waiting = threading.BoundedSemaphore(threads - RESERVED_THREADS)

    def process_resource(
        self,
        req: falcon.Request,
        _resp: falcon.Response,
        _resource: object,
        _params: dict[str, Any],
    ) -> None:
        """Wait, hang or fail before the work."""
        faults = self._script.current
        if is_control(req):
            return
        delay_ms = faults.latency_ms + random.uniform(0, faults.jitter_ms)  # noqa: S311 no secret
        if delay_ms > 0:
            self._wait(delay_ms / 1000)
        if _happens(faults.hang_ratio):
            self._hang(req)
        if _happens(faults.error_ratio):
            req.context.fault = "error"
            raise Refusal(faults.error_status, "scripted_fault")

    def process_response(
        self,
        req: falcon.Request,
        _resp: falcon.Response,
        resource: object,
        succeeded: bool,  # noqa: FBT001 falcon's signature
    ) -> None:
        """Lose the answer after the work."""
        if resource is None or not succeeded or is_control(req):
            return
        if _happens(self._script.current.drop_reply_ratio):
            req.context.fault = "drop_reply"
            _disconnect(req)

    def _hang(self, req: falcon.Request) -> None:
        req.context.fault = "hang"
        self._wait(HANG_S, req.env["gunicorn.socket"])
        _disconnect(req)
        raise Refusal(503, "scripted_fault")  # the client is gone; this prevents the work

    def _wait(self, timeout_s: float, client: socket.socket | None = None) -> None:
        if not self._waiting.acquire(blocking=False):
            raise Refusal(503, "simulator_busy", "more waiting requests than UPSTREAMS_THREADS")
        try:
            self._stop.wait(timeout_s, client)
        finally:
            self._waiting.release()


class FaultsResource:
    """`GET|PUT /control/faults`. PUT replaces all of them: a member left out is off again."""

    def __init__(self, script: Script) -> None:
        self._script = script

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer the faults in force."""
        answer(resp, self._script.current)

    def on_put(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Replace the faults in force."""
        self._script.current = body(req, Faults)
        answer(resp, self._script.current)


def _happens(ratio: float) -> bool:
    return random.random() < ratio  # noqa: S311 no secret


def _disconnect(req: falcon.Request) -> None:
    """Close the connection without the server's knowledge: its answer is lost."""
    try:
        req.env["gunicorn.socket"].shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the client has gone already
