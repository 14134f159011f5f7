"""A user's orders, newest first: shallow pages by number, any depth by cursor."""

from collections.abc import Sequence
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from falcon import Request, Response
from msgspec import Meta, Raw

from orders import views
from orders.api import cursor
from orders.api import exchange as exchanges
from orders.api.auth import READ
from orders.api.operation import Answer, Arguments, Operation, Parameter
from orders.api.ports import Ports
from orders.api.problems import INVALID, Refusal
from orders.api.query import (
    DEFAULT_PAGE_SIZE,
    MAX_DEPTH,
    MAX_PAGE_SIZE,
    PageQuery,
    number,
    page_query,
)
from orders.database.orders import Position
from orders.domain.order import Id, Order

_PART: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "page": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_DEPTH,
            "description": "From 1. Not with cursor.",
        },
        "pageSize": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_PAGE_SIZE,
            "description": f"Orders on a page; {DEFAULT_PAGE_SIZE} unless given.",
        },
        "cursor": {
            "type": "string",
            "pattern": cursor.PATTERN,
            "description": "From the Link header of the page before. Opaque. Not with page.",
        },
    },
    "not": {"required": ["page", "cursor"]},
    "example": {"page": 1, "pageSize": DEFAULT_PAGE_SIZE},
}
_PARAMETERS: Final = (
    Parameter(name="userId", where="path", type=Id, description="Whose orders."),
    # One parameter with an object is the only way to say that two members exclude each other. Its
    # members are those of the query: `form` and `explode` are what a query has unless told.
    Parameter(
        name="part",
        where="query",
        type=Annotated[Raw, Meta(extra_json_schema=_PART)],
        description="Which part of the list, as `?page=2&pageSize=50` or `?cursor=…`: either page "
        f"or cursor, not both. page × pageSize may not exceed {MAX_DEPTH}.",
    ),
)


def _decode(_env: dict[str, Any], path: dict[str, str]) -> Arguments:
    return {"user_id": number("userId", path["userId"])}


class UserOrders:
    """`/api/orders/user/{userId}`."""

    operations: Final = {
        "GET": Operation(
            id="listOrders",
            summary="List a user's orders, newest first",
            description="Follow the Link header from page to page: it leads to any depth.",
            action="list",
            scope=READ,
            decode=_decode,
            user=lambda arguments: arguments["user_id"],
            recent_write="look up",
            parameters=_PARAMETERS,
            answers={
                200: Answer(
                    description="One page; `Link` with rel=next leads to the one after it.",
                    body=list[views.OrderView],
                    headers=("Link",),
                )
            },
            refusals={
                400: "A parameter is invalid, or the cursor is not one of this list.",
            },
            token_refusals={404: "The list is somebody else's."},
        )
    }

    def __init__(self, ports: Ports) -> None:
        self._ledger, self._cursor_keys = ports.ledger, ports.cursor_keys

    def on_get(self, req: Request, resp: Response, user_id: int) -> None:
        """Answer one page."""
        exchange = exchanges.of(req.env)
        exchange.caller.require_sight_of(user_id)
        # Not decoded before: whoever names a user counts for that user, whatever else is wrong.
        query = page_query(req.query_string)
        orders = self._ledger.page(
            user_id,
            query.page_size + 1,
            self._position(query, user_id),
            query.offset,
            own_writes=exchange.wrote_recently is not False,  # unknown: the primary knows
        )
        resp.data = views.orders_json(orders[: query.page_size])
        resp.set_header("Cache-Control", "private, no-cache")
        if len(orders) > query.page_size:
            resp.set_header("Link", self._next(orders, query, user_id))

    on_head = on_get

    def _position(self, query: PageQuery, user_id: int) -> Position | None:
        if query.cursor is None:
            return None
        try:
            return cursor.unseal(query.cursor, user_id, *self._cursor_keys)
        except cursor.InvalidCursor:
            raise Refusal(INVALID, "cursor is not valid for this list.") from None

    def _next(self, orders: Sequence[Order], query: PageQuery, user_id: int) -> str:
        last = orders[query.page_size - 1]
        position = Position(last.created_at, last.id)
        sealed = cursor.seal(position, user_id, self._cursor_keys[0])
        members = urlencode({"cursor": sealed, "pageSize": query.page_size})
        return f'</api/orders/user/{user_id}?{members}>; rel="next"'
