"""The cost of telemetry per request: CPU time with and without it (`make overhead`).

The application does nothing, so that only the middleware is measured: ids, span, metrics, log line.
The figure is the CPU time of the request's thread, the lowest of several rounds, so that other load
has little influence. The exporter's thread is measured separately.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from typing import Final, Literal, NamedTuple
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from loadtest.drill.traces import Receiver

ROUNDS: Final = 15
REQUESTS: Final = 600  # three spans each fit into the exporter's queue
PARENT: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0"
ROW: Final = "{:44} {:7.1f}\n"


class Cost(NamedTuple):
    """Microseconds of CPU for each request: in its own thread, and in the exporter."""

    answering: float
    exporting: float


def bare(_env: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer 202 without a span."""
    start_response("202 Accepted", [("Content-Length", "2")])
    return [b"{}"]


def spanned(env: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with two child spans, as accepting an order does."""
    from orders.telemetry import tracing

    with tracing.span("CheckInventory"), tracing.span("SaveOrder"):
        return bare(env, start_response)


def request(traceparent: str) -> WSGIEnvironment:
    """Return a WSGI environment of a request that places an order."""
    return {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/api/orders",
        "HTTP_TRACEPARENT": traceparent,
    }


def cost(application: WSGIApplication, *, sampled: bool) -> Cost:
    """Return the lowest cost of all rounds."""
    from orders.telemetry import tracing

    tracing._ratio = float(sampled)  # the api samples by this share, independent of the flag
    rounds = [one_round(application, f"{PARENT}{int(sampled)}") for _ in range(ROUNDS)]
    return Cost(
        min(result.answering for result in rounds), min(result.exporting for result in rounds)
    )


def one_round(application: WSGIApplication, traceparent: str) -> Cost:
    """Answer requests, then wait until their spans are exported."""
    from opentelemetry import trace

    process, thread = time.process_time(), time.thread_time()
    for _ in range(REQUESTS):
        application(request(traceparent), _ignore)
    answering = time.thread_time() - thread
    trace.get_tracer_provider().force_flush()  # type: ignore[attr-defined]
    exporting = time.process_time() - process - answering
    return Cost(answering / REQUESTS * 1e6, exporting / REQUESTS * 1e6)


def _ignore(_status: str, _headers: object, _exc_info: object = None) -> Callable[[bytes], object]:
    return lambda _body: None


def receive(pipe: Connection) -> None:
    """Receive spans in a separate process, so that the cost is not measured."""
    with Receiver() as receiver:
        pipe.send(receiver.url)
        pipe.recv()


def measure(level: Literal["error", "info"]) -> tuple[Cost, Cost]:
    """Return the cost of a request at a log level: not sampled, and sampled."""
    from orders.api import middleware
    from orders.settings import LogSettings
    from orders.telemetry import logs

    logs.configure(LogSettings(level=level, format="json"), "overhead")
    application, base = middleware.TelemetryMiddleware(spanned), cost(bare, sampled=False)
    costs = [cost(application, sampled=sampled) for sampled in (False, True)]
    unsampled, sampled = (
        result._replace(answering=result.answering - base.answering) for result in costs
    )
    return unsampled, sampled


def main() -> None:
    """Measure and print the costs."""
    parent_end, child_end = multiprocessing.Pipe()
    receiver = multiprocessing.Process(target=receive, args=(child_end,), daemon=True)
    receiver.start()
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = parent_end.recv()
    os.environ["OTEL_TRACES_SAMPLER_ARG"] = "0"
    os.environ["OTEL_SDK_DISABLED"] = "false"
    from orders.telemetry import tracing

    tracing.configure("overhead")
    terminal = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # log lines are written and dropped
    unsampled, sampled = measure("error")
    line = measure("info")[0].answering - unsampled.answering
    os.dup2(terminal, 1)
    sys.stdout.write(
        "Microseconds of CPU a request\n"
        + ROW.format("ids and metrics, not sampled", unsampled.answering)
        + ROW.format("ids, metrics and three spans, sampled", sampled.answering)
        + ROW.format("the line in the access log, beside it", line)
        + ROW.format("exporting the three spans, another thread", sampled.exporting)
    )
    parent_end.send("enough")
    receiver.join()


if __name__ == "__main__":
    main()
