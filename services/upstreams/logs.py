"""JSON log lines on stdout, each with the ids that came with the request."""

import os
import re
from typing import Final

import falcon
import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_TRACE_ID: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class _Stdout:
    """Write whole lines in one system call each: lines of many threads do not mix."""

    def msg(self, line: bytes) -> None:
        os.write(1, line)

    debug = info = warning = error = critical = exception = msg


def configure(level: str, simulator: str) -> None:
    """Send every line of this process to stdout."""

    def name(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["Application"] = simulator
        return event

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            name,
            structlog.processors.format_exc_info,
            lambda _logger, _method, event: msgspec.json.encode(event, enc_hook=repr) + b"\n",
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: _Stdout(),
        cache_logger_on_first_use=True,
    )


def ids(req: falcon.Request) -> dict[str, str]:
    """Return the correlation id and trace context the caller sent, by their names in log lines."""
    identifiers: dict[str, str] = {}
    if correlation := req.get_header("X-Correlation-ID"):
        identifiers["correlationId"] = correlation
    if traceparent := req.get_header("traceparent"):
        identifiers["traceparent"] = traceparent
        if match := _TRACE_ID.match(traceparent):
            identifiers["traceId"] = match[1]
    return identifiers
