"""What is known about the request being answered: filled in on the way in, read on the way out."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec
from opentelemetry.trace import Span

from orders.api.auth import EVERYBODY, Caller
from orders.telemetry.context import Context

UNMATCHED: Final = "unmatched"
_KEY: Final = "orders.exchange"


class Exchange(msgspec.Struct):
    """One request and its answer. `route` is a template and safe as a label; a path is not."""

    context: Context
    method: str
    path: str
    span: Span | None = None
    route: str = UNMATCHED
    action: str | None = None  # create, get, list: the label of order_requests_total
    caller: Caller = EVERYBODY
    limit_headers: Sequence[tuple[str, str]] = ()
    replayed: bool = False
    user_id: int | None = None
    # Whether the user wrote in the last seconds; None: unknown, so read on the primary.
    wrote_recently: bool | None = None
    order_id: int | None = None
    total: Decimal | None = None

    def attach(self, env: dict[str, Any]) -> None:
        """Make it known to everybody who sees the WSGI environment."""
        env[_KEY] = self


def of(env: dict[str, Any]) -> Exchange:
    """Return the exchange that the outermost middleware attached."""
    exchange: Exchange = env[_KEY]
    return exchange
