"""gunicorn's gthread worker, which answers unreadable requests with problem documents."""

from http import HTTPStatus
from typing import Any, Final

import structlog
from gunicorn.http import errors
from gunicorn.util import write_nonblock
from gunicorn.workers.gthread import ThreadWorker

from orders.api import problems
from orders.api.problems import ProblemType, Refusal
from orders.telemetry import context as ids
from orders.telemetry.context import CORRELATION_HEADER, Context

# The first class that matches decides. The gateway has the same details.
_ANSWERS: Final[tuple[tuple[type[Exception], int, str], ...]] = (
    (errors.InvalidResponseHeader, 500, "The service failed to handle the request."),
    (errors.InvalidResponseHeaderName, 500, "The service failed to handle the request."),
    (errors.LimitRequestLine, 414, "The request target is longer than 8 KiB."),
    (
        errors.LimitRequestHeaders,
        431,
        "The header fields are larger than the limit (8 KiB each, 100 of them).",
    ),
    (errors.ExpectationFailed, 417, "Only 100-continue can be expected."),
    (errors.ParseException, 400, "The request is not well-formed HTTP."),
    (Exception, 500, "The service failed to handle the request."),
)
_log = structlog.get_logger()


class GthreadWorker(ThreadWorker):  # type: ignore[misc] # gunicorn ships no types
    """Serve with threads; answer malformed requests without HTML."""

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:  # noqa: ARG002 gunicorn's
        """Answer a request that could not be read, or an application that failed."""
        _, status, detail = next(answer for answer in _ANSWERS if isinstance(exc, answer[0]))
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.error("request.failed", error=type(exc).__name__, exc_info=exc)
        else:
            _log.info("request.unreadable", error=type(exc).__name__, status=status)
        try:
            write_nonblock(client, _answer(status, detail))
        except OSError:
            _log.debug("request.unreadable_and_gone")


def _answer(status: int, detail: str) -> bytes:
    context, _ = ids.accept(None, None)
    refusal = Refusal(ProblemType(status, HTTPStatus(status).phrase), detail)
    body = problems.render(refusal, "/", context)
    fields = [*problems.headers(refusal), *_common(context), ("Content-Length", str(len(body)))]
    lines = [
        f"HTTP/1.1 {problems.status_line(status)}",
        *(f"{name}: {text}" for name, text in fields),
    ]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body


def _common(context: Context) -> list[tuple[str, str]]:
    return [
        ("X-Content-Type-Options", "nosniff"),
        (CORRELATION_HEADER, context.correlation_id),
        ("traceparent", context.traceparent),
    ]
