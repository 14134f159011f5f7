"""A user's orders, newest first: shallow pages by number, any depth by cursor.

A cursor is the position of a row, sealed for one user.
"""

import base64
import datetime as dt
import hashlib
import hmac
import re
import struct
from collections.abc import Sequence
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl

import msgspec
from falcon import Request, Response
from msgspec import Meta, Raw

from orders.api.problems import INVALID, Refusal, not_found
from orders.api.requests import number
from orders.api.resource import READ, ApiPorts, Operation, Parameter, ResponseDoc, exchange_of
from orders.database.orders import Position
from orders.domain.order import Id, Order, OrderView, orders_json

_VERSION: Final = 1
_POSITION: Final = struct.Struct(">Bqq")  # version, microseconds since 1970, order id
_SEAL_BYTES: Final = 16
# 33 bytes are exactly 44 characters, without padding or spare bits: a position has one cursor.
PATTERN: Final = r"^[A-Za-z0-9_-]{44}\Z"
_SHAPE: Final = re.compile(PATTERN)
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND: Final = dt.timedelta(microseconds=1)
DEFAULT_PAGE_SIZE: Final = 20
MAX_PAGE_SIZE: Final = 100
MAX_DEPTH: Final = 10_000  # most rows that an OFFSET may skip; deeper pages need a cursor
_KNOWN: Final = ("page", "pageSize", "cursor")
_FIELDS_LIMIT: Final = 50
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
            "pattern": PATTERN,
            "description": "From the Link header of the previous page. Opaque. Not with page.",
        },
    },
    "not": {"required": ["page", "cursor"]},
    "example": {"page": 1, "pageSize": DEFAULT_PAGE_SIZE},
}
_PARAMETERS: Final = (
    Parameter(name="userId", where="path", type=Id, description="Whose orders."),
    # Only the schema of one object can say that two members exclude each other. Its members are
    # those of the query, because `form` and `explode` are a query parameter's defaults.
    Parameter(
        name="part",
        where="query",
        type=Annotated[Raw, Meta(extra_json_schema=_PART)],
        description="The part of the list, as `?page=2&pageSize=50` or `?cursor=…`: either page or"
        f" cursor, not both. page × pageSize may not exceed {MAX_DEPTH}.",
    ),
)


class PageQuery(msgspec.Struct, frozen=True):
    """The requested part of a list: by page, or after a cursor."""

    page: int = 1
    page_size: int = DEFAULT_PAGE_SIZE
    cursor: str | None = None

    @property
    def offset(self) -> int:
        """Number of rows before the page."""
        return (self.page - 1) * self.page_size


_FIRST_PAGE: Final = PageQuery()


class UserOrders:
    """Orders of a user at `/api/orders/user/{userId}`."""

    operations: Final = {
        "GET": Operation(
            id="listOrders",
            summary="List a user's orders, newest first",
            description="Follow the Link header from page to page: it leads to any depth.",
            action="list",
            scope=READ,
            decode=lambda _env, path: {"user_id": number("userId", path["userId"])},
            user=lambda arguments: arguments["user_id"],
            recent_write="look up",
            parameters=_PARAMETERS,
            answers={
                200: ResponseDoc(
                    description="One page; `Link` with rel=next leads to the next one.",
                    body=list[OrderView],
                    headers=("Link",),
                )
            },
            refusals={
                400: "A parameter is invalid, or the cursor is not one of this list.",
            },
            token_refusals={404: "The list belongs to another user."},
        )
    }

    def __init__(self, ports: ApiPorts) -> None:
        self._orders = ports.orders
        self._cursor_keys = [sealing_key(secret) for secret in ports.cursor_keys]

    def on_get(self, req: Request, resp: Response, user_id: int) -> None:
        """Answer with one page of orders and its Link header."""
        exchange = exchange_of(req.env)
        if not exchange.caller.may_see(user_id):
            raise not_found()  # the same answer as for a missing order
        # Decoded here, not earlier: a request that names a user counts for that user even if the
        # rest is invalid.
        query = page_query(req.query_string)
        orders = self._orders.page(
            user_id,
            query.page_size + 1,
            self._position(query, user_id),
            query.offset,
            own_writes=exchange.wrote_recently is not False,  # unknown: the primary knows
        )
        resp.data = orders_json(orders[: query.page_size])
        resp.set_header("Cache-Control", "private, no-cache")
        if len(orders) > query.page_size:
            resp.set_header("Link", self._next(orders, query, user_id))

    on_head = on_get

    def _position(self, query: PageQuery, user_id: int) -> Position | None:
        if query.cursor is None:
            return None
        try:
            return unseal(query.cursor, user_id, *self._cursor_keys)
        except InvalidCursor:
            raise Refusal(INVALID, "cursor is not valid for this list.") from None

    def _next(self, orders: Sequence[Order], query: PageQuery, user_id: int) -> str:
        order = orders[query.page_size - 1]
        position = Position(order.created_at, order.id)
        sealed = seal(position, user_id, self._cursor_keys[0])
        members = f"cursor={sealed}&pageSize={query.page_size}"  # nothing in it needs an escape
        return f'</api/orders/user/{user_id}?{members}>; rel="next"'


def page_query(query: str) -> PageQuery:
    """Read the query of a list. Unknown members are ignored; raises Refusal for invalid ones."""
    if not query:
        return _FIRST_PAGE
    members = _members(query)
    if "cursor" in members and "page" in members:
        raise Refusal(INVALID, "Give either page or cursor, not both.")
    page = PageQuery(
        page=number("page", members.get("page", "1")),
        page_size=number(
            "pageSize", members.get("pageSize", str(DEFAULT_PAGE_SIZE)), MAX_PAGE_SIZE
        ),
        cursor=members.get("cursor"),
    )
    if page.page * page.page_size > MAX_DEPTH:
        raise Refusal(
            INVALID,
            f"page × pageSize must not exceed {MAX_DEPTH}. "
            'To go deeper, follow the cursor in the Link header (rel="next").',
        )
    return page


def _members(query: str) -> dict[str, str]:
    try:
        fields = parse_qsl(query, keep_blank_values=True, max_num_fields=_FIELDS_LIMIT)
    except ValueError:
        raise Refusal(INVALID, "The query has too many members.") from None
    members: dict[str, str] = {}
    for name, value in fields:
        if name in members and name in _KNOWN:
            raise Refusal(INVALID, f"{name} is given more than once.")
        members[name] = value
    return members


class InvalidCursor(ValueError):
    """Take an unchanged cursor from a Link header of the same user's list."""


def sealing_key(secret: bytes) -> bytes:
    """Return the key of a secret of any length; BLAKE2b takes at most 64 bytes."""
    return hashlib.blake2b(secret).digest()


def seal(position: Position, user_id: int, key: bytes) -> str:
    """Return the cursor of the orders after `position` in the list of `user_id`."""
    micros = (position.created_at - _EPOCH) // _MICROSECOND
    payload = _POSITION.pack(_VERSION, micros, position.order_id)
    return base64.urlsafe_b64encode(payload + _mac(payload, user_id, key)).decode("ascii")


def is_well_formed(cursor: str) -> bool:
    """Return whether a text has the form of a cursor."""
    return _SHAPE.match(cursor) is not None


def unseal(cursor: str, user_id: int, *keys: bytes) -> Position:
    """Return the position in a cursor.

    Raises InvalidCursor unless `seal` made it for this user, with one of the keys.
    """
    if not is_well_formed(cursor):
        raise InvalidCursor
    raw = base64.urlsafe_b64decode(cursor)
    payload, mac = raw[: _POSITION.size], raw[_POSITION.size :]
    if not any(hmac.compare_digest(mac, _mac(payload, user_id, key)) for key in keys):
        raise InvalidCursor
    _, micros, order_id = _POSITION.unpack(payload)
    return Position(_EPOCH + micros * _MICROSECOND, order_id)


def _mac(payload: bytes, user_id: int, key: bytes) -> bytes:
    # BLAKE2b with a key is a MAC (RFC 7693). A page takes 6 % less CPU than with OpenSSL's HMAC.
    text = b"orders.cursor\0%d\0" % user_id + payload
    return hashlib.blake2b(text, key=key, digest_size=_SEAL_BYTES).digest()
