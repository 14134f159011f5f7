"""`/api/orders/{id}/history`: the transitions of an order."""

import datetime as dt
from typing import Annotated, Final

import msgspec
from falcon import Request, Response
from msgspec import Meta

from orders.api.problems import not_found
from orders.api.requests import ORDER_ID, decode_order_id
from orders.api.resource import READ, ApiPorts, Operation, ResponseDoc, exchange_of
from orders.domain.lifecycle import Status


class TransitionView(msgspec.Struct, frozen=True):
    """One transition; `from` is null in the first."""

    before: Status | None = msgspec.field(name="from")
    after: Status = msgspec.field(name="to")
    reason: Annotated[str | None, Meta(description="The service's reason, or the caller's.")]
    actor: Annotated[str, Meta(description="`customer`, `support`, `worker` or `operator:<name>`.")]
    at: Annotated[dt.datetime, Meta(tz=True, description="UTC.")]
    trace_id: Annotated[str | None, Meta(description="The trace of the request behind it.")] = (
        msgspec.field(name="traceId")
    )


class OrderHistory:
    """Transitions of an order at `/api/orders/{id}/history`."""

    operations: Final = {
        "GET": Operation(
            id="getOrderHistory",
            summary="Show every transition of an order, oldest first",
            description="Each transition has who made it, when, and the trace of the request.",
            action="history",
            scope=READ,
            decode=decode_order_id,
            recent_write="look up",
            parameters=(ORDER_ID,),
            answers={200: ResponseDoc(description="The transitions.", body=list[TransitionView])},
            refusals={
                400: "The id is not an integer from 1 to 2^53-1.",
                404: "There is no such order, or it belongs to another user.",
            },
        )
    }

    def __init__(self, ports: ApiPorts) -> None:
        self._history = ports.history

    def on_get(self, req: Request, resp: Response, order_id: int) -> None:
        """Answer with the history, from the primary if the user may have written a moment ago."""
        exchange = exchange_of(req.env)
        exchange.order_id = order_id
        entries = self._history.of(
            order_id,
            exchange.caller.subject,
            everyones=exchange.caller.sees_everything,
            own_writes=exchange.wrote_recently is not False,  # unknown: the primary knows
        )
        if not entries:
            raise not_found()
        views = [
            TransitionView(
                None if entry.from_status is None else Status(entry.from_status),
                Status(entry.to_status),
                entry.reason,
                entry.actor,
                entry.at.astimezone(dt.UTC),
                entry.trace_id,
            )
            for entry in entries
        ]
        resp.data = msgspec.json.encode(views)
        resp.set_header("Cache-Control", "private, no-cache")

    on_head = on_get
