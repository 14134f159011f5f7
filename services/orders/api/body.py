"""Read a request's body the same way on every server.

Falcon's `bounded_stream` is empty for a chunked body, and reading to the end is safe only where
the server marks the end (`wsgi.input_terminated`; gunicorn and meinheld do).
"""

from typing import Any, Final

from gunicorn.http.errors import ParseException

from orders.errors import OrdersError

LIMIT_BYTES: Final = 64 * 1024
# gthread waits for a body without end; whoever sends nothing for this long is given up.
STALL_S: Final = 10.0


class BodyTooLarge(OrdersError):
    """Send a smaller body (413)."""


class BodyIncomplete(OrdersError):
    """Send the body whole, framed as HTTP/1.1 says (400)."""


def read_body(environ: dict[str, Any], limit_bytes: int = LIMIT_BYTES) -> bytes:
    """Return the whole body, chunked or not; never reads more than the limit and one byte.

    Raises BodyTooLarge, also when only the declared length says so, and BodyIncomplete.
    """
    length = _declared_length(environ)
    if length is not None and length > limit_bytes:
        raise BodyTooLarge(f"The body has {length} bytes; {limit_bytes} are allowed.")
    if length is None and not environ.get("wsgi.input_terminated"):
        return b""
    body = _read(environ, limit_bytes + 1 if length is None else length)
    if len(body) > limit_bytes:
        raise BodyTooLarge(f"The body has more than the {limit_bytes} bytes allowed.")
    if length is not None and len(body) < length:
        raise BodyIncomplete(f"The body ends after {len(body)} of {length} bytes.")
    return body


def _declared_length(environ: dict[str, Any]) -> int | None:
    declared = environ.get("CONTENT_LENGTH", "").strip()
    if not declared:
        return None
    if not (declared.isascii() and declared.isdigit()):
        raise BodyIncomplete("Content-Length is not a number.")
    return int(declared)


def _read(environ: dict[str, Any], size: int) -> bytes:
    connection = environ.get("gunicorn.socket")
    if connection is not None:
        connection.settimeout(STALL_S)
    try:
        body: bytes = environ["wsgi.input"].read(size)
    except (OSError, ParseException) as error:  # closed, silent, or chunks that are none
        raise BodyIncomplete("The body ends too early or its chunks are malformed.") from error
    return body
