"""The ids that follow an order through all processes: correlation id and W3C trace context.

Source: W3C Trace Context, https://www.w3.org/TR/trace-context/ (version 00).
"""

import contextvars
import random
import re
from typing import Final

import msgspec

CORRELATION_HEADER: Final = "X-Correlation-ID"
_CORRELATION_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_TRACEPARENT: Final = re.compile(
    r"(?!ff|00-.{53})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?\Z"
)


class Context(msgspec.Struct, frozen=True):
    """The ids of the current work. `trace_id` is 32 and `span_id` 16 lower-case hex digits."""

    correlation_id: str
    trace_id: str
    span_id: str
    sampled: bool

    @property
    def traceparent(self) -> str:
        """Return the W3C header that makes the receiver's span a child of this span."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


_current: contextvars.ContextVar[Context | None] = contextvars.ContextVar("context", default=None)


def current() -> Context | None:
    """Return the ids of the current work, or None outside of any."""
    return _current.get()


def accept(correlation_id: str | None, traceparent: str | None) -> tuple[Context, bool]:
    """Return the ids that a peer sent, with new ones in place of missing or malformed ones.

    The second value is whether the trace is the peer's.
    """
    # No secret, so no call to the kernel. Python seeds anew after a fork.
    random_hex = random.getrandbits(320).to_bytes(40).hex()
    is_valid = correlation_id is not None and _CORRELATION_ID.match(correlation_id)
    correlation = correlation_id if is_valid and correlation_id else random_hex[:32]
    match = _TRACEPARENT.match(traceparent) if traceparent else None
    if match is None:
        return Context(correlation, random_hex[32:64], random_hex[64:], False), False
    trace_id, span_id, flags = match.groups()
    return Context(correlation, trace_id, span_id, bool(int(flags, 16) & 1)), True


def enter(context: Context) -> contextvars.Token[Context | None]:
    """Make `context` current until `leave` is given the token."""
    return _current.set(context)


def leave(token: contextvars.Token[Context | None]) -> None:
    """Restore the context from before `enter`."""
    _current.reset(token)


class using:  # noqa: N801 used like a function, as contextlib.suppress is
    """Make `context` current inside the block."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: Context) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._token = _current.set(self._context)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


def outgoing_headers() -> dict[str, str]:
    """Return the headers that carry the ids to the next hop; none outside of any work."""
    context = _current.get()
    if context is None:
        return {}
    return {CORRELATION_HEADER: context.correlation_id, "traceparent": context.traceparent}
