"""The service's own statements as pgbench scripts. Pure, except for the script's file."""

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from orders.database.statements import statement

_TRACEPARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
# NULL as a parameter, as in the service: the planner would remove a literal.
_NULL: Final = "nullif(:nothing::text, '-')"
# One attempt and one message for each order, distinguished by its id.
_ATTEMPT: Final = "lpad(:id::text, 32, 'a')::uuid"
_MESSAGE: Final = "lpad(:id::text, 32, 'b')::uuid"

CONSTANTS: Final[dict[str, str | int]] = {
    "nothing": "-",
    "trace_id": _TRACEPARENT[3:35],
    "traceparent": _TRACEPARENT,
    "correlation_id": "0af7651916cd43dd8448eb211c80319d",
    "worker": "worker",
    "method": "card",
    "route": "POST /api/orders",
    "etag": '"v1"',
    "total": "19.90",
    "newest": "9999-12-31 00:00:00+00",  # the position of the first page
}
_IDS: Final = {name: f":{name}" for name in ("correlation_id", "traceparent", "trace_id")}

_ACCEPT: Final = _IDS | {
    "principal": ":worker", "route": ":route", "key": _NULL, "fingerprint": "''::bytea",
    "body": ":nothing", "location": ":nothing", "etag": ":etag", "user_id": ":user",
    "product_id": "1", "quantity": "2", "total": ":total", "payment_method": ":method",
}  # fmt: skip
_LIST: Final = {
    "user_id": ":user", "before_at": ":newest", "before_id": "9007199254740991",
    "limit": "21", "offset": "0",
}  # fmt: skip
_STEP: Final = _IDS | {
    "id": ":id", "cancel_requested": "false", "status_reason": _NULL, "reason": _NULL,
    "announces": _NULL, "actor": ":worker", "reservation": _NULL, "reservation_key": _NULL,
    "new_attempt": f"{_NULL}::uuid", "attempt": _NULL, "outcome": _NULL, "outcome_reason": _NULL,
    "refunded": "0", "refund_dropped": "0",
}  # fmt: skip


def written(name: str, values: Mapping[str, str]) -> str:
    """Return a statement with psycopg's names replaced by pgbench's expressions."""
    text = statement(name).decode()
    return re.sub(r"%\((\w+)\)s", lambda match: values[match[1]], text).strip() + ";\n"


def accept_order(*, with_key: bool = False) -> str:
    """Return the one statement of a POST, for users `:first` to `:last`."""
    key = {"key": "(:number)::text"} if with_key else {}
    numbers = "\\set user random(:first, :last)\n\\set number random(1, 1000000000000000)\n"
    return numbers + written("accept_order", _ACCEPT | key)


def list_orders() -> str:
    """Return the one statement of a first list page, for users `:first` to `:last`."""
    return "\\set user random(:first, :last)\n" + written("list_orders", _LIST)


def find_order() -> str:
    """Return the one statement of a GET that no cache answers, for orders `:first` to `:last`."""
    return "\\set id random(:first, :last)\n" + written("find_order", {"id": ":id"})


def list_deep() -> str:
    """Return the two statements of page 500 of a list, for the user `:first`."""
    begin = written("find_position", {"user_id": ":first", "before": "9979"}).rstrip(";\n")
    position = {"user_id": ":first", "before_at": ":created_at", "before_id": ":id", "limit": "21"}
    return f"{begin} \\gset\n" + written("list_orders", position | {"offset": "0"})


def bring_to_end() -> str:
    """Return the worker's statements for one order; the sessions share the orders from `:first`."""
    delivery = {"id": ":id", "message_id": _MESSAGE, "consumer": ":worker"}
    reserved = {
        "version": "1", "from": "'Pending'", "to": "'Reserved'", "reservation": "'held'",
        "reservation_key": f"{_MESSAGE}::text",
    }  # fmt: skip
    charging = {
        "version": "2", "from": "'Reserved'", "to": "'Charging'", "new_attempt": _ATTEMPT,
    }  # fmt: skip
    completed = {
        "version": "3", "from": "'Charging'", "to": "'Completed'", "attempt": _ATTEMPT,
        "outcome": "'approved'", "announces": "'order.completed.v1'",
    }  # fmt: skip
    steps = [written("advance_order", _STEP | step) for step in (reserved, charging, completed)]
    choice = "\\set id :first + :taken * :clients + :client_id\n\\set taken :taken + 1\n"
    settled = delivery | {"version": "4", "before": "'held'", "reservation": "'committed'"}
    return (
        choice + written("load_work", delivery) + "".join(steps) + written("settle_stock", settled)
    )


@contextlib.contextmanager
def script(lines: str) -> Iterator[Path]:
    """Keep a script in a file for as long as pgbench reads it."""
    with tempfile.NamedTemporaryFile("w", suffix=".pgbench") as file:
        file.write(lines)
        file.flush()
        yield Path(file.name)
