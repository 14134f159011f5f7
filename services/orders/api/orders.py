"""The order resources: place an order, show an order."""

import http
from typing import Any, Final

import msgspec
from falcon import Request, Response

from orders.api.problems import INSUFFICIENT_INVENTORY, Refusal, not_found
from orders.api.requests import (
    IDEMPOTENCY_KEY,
    ORDER_ID,
    OrderRequest,
    check_media_type,
    decode_order,
    decode_order_id,
    idempotency_key,
    is_known,
    read_body,
)
from orders.api.resource import (
    READ,
    WRITE,
    ApiPorts,
    Arguments,
    HttpExchange,
    Operation,
    Parameter,
    ResponseDoc,
    exchange_of,
)
from orders.cache.orders import CachedOrder, snapshot
from orders.database.orders import AnswerTemplate, StoredAnswer
from orders.domain.lifecycle import Status
from orders.domain.order import Id, NewOrder, OrderView, etag, user_principal
from orders.errors import Transient
from orders.upstream.inventory import StockAnswer


def decode_new_order(env: dict[str, Any], _path: dict[str, str]) -> Arguments:
    """Read the order in the body. Raises Refusal, BodyTooLarge, BodyIncomplete."""
    check_media_type(env.get("CONTENT_TYPE"), env.get("HTTP_CONTENT_ENCODING"))
    return {"order": decode_order(read_body(env))}


class Acceptance(msgspec.Struct, rename="camel", frozen=True):
    """The answer to an accepted order."""

    # For the documentation: PostgreSQL makes the bytes of ACCEPTED, and stores them for replays.
    order_id: Id
    status: Status
    message: str


ORDER_LOCATION: Final = "/api/orders/%s"
ACCEPTED: Final = AnswerTemplate(
    route="POST /api/orders",
    location=ORDER_LOCATION,
    body=f'{{"orderId":%s,"status":"{Status.PENDING}","message":"Order is being processed"}}',
)


class OrderPlacement:
    """`/api/orders`: place an order."""

    operations: Final = {
        "POST": Operation(
            id="createOrder",
            summary="Place an order",
            description="The answer comes when the order is stored, before it is paid. Follow it at"
            " `Location`. Send an Idempotency-Key, so that a repetition does not order twice.",
            action="create",
            scope=WRITE,
            decode=decode_new_order,
            user=lambda arguments: arguments["order"].user_id,
            recent_write="mark",
            parameters=(IDEMPOTENCY_KEY,),
            body=OrderRequest,
            answers={
                202: ResponseDoc(
                    description="The order is accepted and will be processed.",
                    body=Acceptance,
                    headers=("Location", "ETag", "Idempotency-Replayed"),
                )
            },
            refusals={
                400: "The request is malformed or invalid, or the inventory is insufficient.",
                409: "The first request with this Idempotency-Key is still running.",
                413: "The body is larger than 64 KiB.",
                415: "The body is not plain application/json in UTF-8.",
                422: "The Idempotency-Key was used with another body.",
                503: "The service cannot answer right now. With Retry-After the request may be "
                "sent again; without it (`urn:orders:problem:outcome-unknown`) the order may have "
                "been accepted: list the user's orders before sending it again.",
            },
        )
    }

    def __init__(self, ports: ApiPorts) -> None:
        self._orders, self._stock, self._cache = ports.orders, ports.stock, ports.cache
        self._key_required = ports.key_required

    def on_post(self, req: Request, resp: Response, order: NewOrder) -> None:
        """Accept an order once per principal and key."""
        exchange = exchange_of(req.env)
        exchange.total = order.total
        exchange.caller.require_identity(order.user_id)
        key = idempotency_key(req.env.get("HTTP_IDEMPOTENCY_KEY"), required=self._key_required)
        answer = self._accept(exchange, order, key)
        show_answer(resp, answer)
        exchange.replayed = answer.replayed
        exchange.order_id = int(answer.location.rpartition("/")[2])
        self._cache.note_existing(exchange.order_id)

    def _accept(self, exchange: HttpExchange, order: NewOrder, key: str | None) -> StoredAnswer:
        principal = user_principal(exchange.caller.subject or order.user_id)
        refusal = self._stock_refusal(order)
        if refusal is None:
            return self._orders.accept(order, exchange.context, principal, key)
        # A repeated request gets the stored answer, even if the stock is gone by now.
        replay = self._orders.replay(order, principal, key) if key is not None else None
        if replay is None:
            raise refusal
        return replay

    def _stock_refusal(self, order: NewOrder) -> Exception | None:
        try:
            answer = self._stock.check(order.product_id, order.quantity)
        except Transient as error:
            return error
        if answer is StockAnswer.INSUFFICIENT:
            return Refusal(INSUFFICIENT_INVENTORY, "Insufficient inventory")
        return None


class OneOrder:
    """`/api/orders/{id}`: show an order."""

    operations: Final = {
        "GET": Operation(
            id="getOrder",
            summary="Show an order",
            description="`ETag` changes with the order: send it in If-None-Match to poll cheaply.",
            action="get",
            scope=READ,
            decode=decode_order_id,
            parameters=(
                ORDER_ID,
                Parameter(
                    name="If-None-Match",
                    where="header",
                    type=str,
                    description="Entity tags of versions that the caller has.",
                ),
            ),
            answers={
                200: ResponseDoc(description="The order.", body=OrderView, headers=("ETag",)),
                304: ResponseDoc(description="The caller has this version.", headers=("ETag",)),
            },
            refusals={
                400: "The id is not an integer from 1 to 2^53-1.",
                404: "There is no such order, or it belongs to another user.",
            },
        )
    }

    def __init__(self, ports: ApiPorts) -> None:
        self._orders, self._cache = ports.orders, ports.cache

    def on_get(self, req: Request, resp: Response, order_id: int) -> None:
        """Answer with the order's JSON, from the cache if it has the order."""
        exchange = exchange_of(req.env)
        exchange.order_id = order_id
        order = self._cache.load(order_id, lambda: self._fetch(order_id))
        if order is None or not exchange.caller.may_see(order.owner_id):
            raise not_found()
        tag = etag(order.version)
        resp.set_header("ETag", tag)
        resp.set_header("Cache-Control", "private, no-cache")
        if is_known(tag, req.env.get("HTTP_IF_NONE_MATCH")):
            resp.status = http.HTTPStatus.NOT_MODIFIED
        else:
            resp.data = order.body

    on_head = on_get

    def _fetch(self, order_id: int) -> CachedOrder | None:
        order = self._orders.find(order_id)
        return None if order is None else snapshot(order)


def show_answer(resp: Response, answer: StoredAnswer) -> None:
    """Copy a stored answer into the response: a new one, or an earlier one for a replay."""
    resp.status = answer.status
    resp.data = answer.body
    resp.set_header("Location", answer.location)
    resp.set_header("ETag", answer.etag)
    resp.set_header("Cache-Control", "no-store")
    if answer.replayed:
        resp.set_header("Idempotency-Replayed", "true")
