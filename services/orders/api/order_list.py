"""A user's orders, newest first: shallow pages by number, any depth by cursor."""

from collections.abc import Sequence
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from falcon import Request, Response
from msgspec import Meta

from orders import views
from orders.api import cursor
from orders.api import exchange as exchanges
from orders.api.auth import READ
from orders.api.door import Door
from orders.api.exchange import Exchange
from orders.api.operation import Answer, Operation, Parameter
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

_PARAMETERS: Final = (
    Parameter(name="userId", where="path", type=Id, description="Whose orders."),
    Parameter(
        name="page",
        where="query",
        type=Annotated[int, Meta(ge=1, le=MAX_DEPTH)],
        description=f"From 1; page × pageSize may not exceed {MAX_DEPTH}. Not with cursor.",
    ),
    Parameter(
        name="pageSize",
        where="query",
        type=Annotated[int, Meta(ge=1, le=MAX_PAGE_SIZE)],
        description=f"Orders on a page; {DEFAULT_PAGE_SIZE} unless given.",
    ),
    Parameter(
        name="cursor",
        where="query",
        type=str,
        description="From the Link header of the page before. Opaque.",
    ),
)


class UserOrders:
    """`/api/orders/user/{userId}`."""

    operations: Final = {
        "GET": Operation(
            id="listOrders",
            summary="List a user's orders, newest first",
            action="list",
            scope=READ,
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

    def __init__(self, door: Door, ports: Ports) -> None:
        self._door, self._ledger, self._writers = door, ports.ledger, ports.writers
        self._cursor_key = ports.cursor_key

    def on_get(self, req: Request, resp: Response, **path: str) -> None:
        """Answer one page."""
        exchange = exchanges.of(req.env)
        user, own_writes = self._come_in(exchange, req.env, path["userId"])
        exchange.caller.require(READ)
        exchange.caller.require_sight_of(user)
        asked = page_query(req.query_string)
        after = self._position(asked, user)
        found = self._ledger.page(
            user, asked.page_size + 1, after, asked.offset, own_writes=own_writes
        )
        resp.data = views.orders_json(found[: asked.page_size])
        resp.set_header("Cache-Control", "private, no-cache")
        if len(found) > asked.page_size:
            resp.set_header("Link", self._next(found, asked, user))

    on_head = on_get

    def _come_in(self, exchange: Exchange, env: dict[str, Any], user_id: str) -> tuple[int, bool]:
        """Pass the door; learn in the same round trip whether the user wrote a moment ago."""
        try:
            user = exchange.user_id = number("userId", user_id)
        except Refusal:
            self._door.enter(exchange, env, None)
            raise
        writers = self._writers
        if writers is None or writers.wrote_here(user):
            self._door.enter(exchange, env, user)
            return user, writers is not None
        replies = self._door.enter(exchange, env, user, writers.asking(user))
        wrote = writers.wrote_recently(user) if replies is None else writers.answer(replies)
        return user, wrote is not False  # unknown: the primary knows

    def _position(self, asked: PageQuery, user_id: int) -> Position | None:
        if asked.cursor is None:
            return None
        try:
            return cursor.unseal(asked.cursor, user_id, self._cursor_key)
        except cursor.InvalidCursor:
            raise Refusal(INVALID, "cursor is not valid for this list.") from None

    def _next(self, found: Sequence[Order], asked: PageQuery, user_id: int) -> str:
        last = found[asked.page_size - 1]
        position = Position(last.created_at, last.id)
        sealed = cursor.seal(position, user_id, self._cursor_key)
        query = urlencode({"cursor": sealed, "pageSize": asked.page_size})
        return f'</api/orders/user/{user_id}?{query}>; rel="next"'
