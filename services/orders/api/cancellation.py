"""`/api/orders/{id}/cancellation`: cancel an order in any status."""

from typing import Final

import msgspec
from falcon import Request, Response

from orders.api import changes
from orders.api.changes import CancellationRequest, mark_owner, principal
from orders.api.orders import ORDER_LOCATION, show_answer
from orders.api.problems import NOT_CANCELLABLE, Refusal, not_found
from orders.api.requests import IDEMPOTENCY_KEY, ORDER_ID, idempotency_key, number
from orders.api.resource import (
    WRITE,
    ApiPorts,
    HttpExchange,
    Operation,
    ResponseDoc,
    exchange_of,
)
from orders.cache.orders import snapshot
from orders.database.cancellations import (
    CancellationCommand,
    CancellationTemplates,
    Cancelled,
    NotCancellable,
    TooLate,
)
from orders.domain.lifecycle import Status
from orders.domain.order import Id

_DETAILS: Final = {
    TooLate.FAILED: "The order failed; there is nothing to cancel.",
    TooLate.WINDOW_CLOSED: "The order was paid too long ago to be cancelled.",
}


class CancellationAnswer(msgspec.Struct, rename="camel", frozen=True):
    """The order after the cancellation was accepted."""

    # For the documentation: PostgreSQL makes the bytes of CANCELLED, and stores them for replays.
    order_id: Id
    status: Status
    message: str
    cancel_requested: bool | msgspec.UnsetType = msgspec.UNSET


def _body(status: Status, message: str) -> str:
    waits = ',"cancelRequested":true' if status is Status.CHARGING else ""
    return f'{{"orderId":%s,"status":"{status}","message":"{message}"{waits}}}'


_MESSAGES: Final = {
    Status.CHARGING: "The payment is under way; its outcome decides how the order is cancelled",
    Status.CANCELLED: "Order is cancelled",
    Status.REFUNDING: "Order is cancelled; the money is on its way back",
    Status.REFUNDED: "Order is cancelled; the money went back",
}
CANCELLED: Final = CancellationTemplates(
    route="POST /api/orders/{id}/cancellation",
    location=ORDER_LOCATION,
    bodies={status: _body(status, message) for status, message in _MESSAGES.items()},
    declined=_body(
        Status.REFUNDING,
        "Order is cancelled; Payment declined the refund, and support settles it",
    ),
)


class Cancellation:
    """`/api/orders/{id}/cancellation`: cancel an order."""

    operations: Final = {
        "POST": Operation(
            id="cancelOrder",
            summary="Cancel an order",
            description="Possible until some time after the payment, which is then refunded. A"
            " repetition changes nothing.",
            action="cancel",
            scope=WRITE,
            decode=lambda env, path: {
                "order_id": number("id", path["id"]),
                "cancellation": changes.cancellation(env),
            },
            recent_write="mark",
            parameters=(ORDER_ID, IDEMPOTENCY_KEY),
            body=CancellationRequest,
            body_required=False,
            answers={
                202: ResponseDoc(
                    description="Before the payment the order is cancelled at once. During the"
                    " payment its outcome decides. Afterwards the money is refunded.",
                    body=CancellationAnswer,
                    headers=("Location", "ETag", "Idempotency-Replayed"),
                ),
                200: ResponseDoc(
                    description="The order was cancelled before.",
                    body=CancellationAnswer,
                    headers=("Location", "ETag", "Idempotency-Replayed"),
                ),
            },
            refusals={
                400: "The request is malformed or invalid.",
                404: "There is no such order, or it belongs to another user.",
                409: "The order failed, or was paid too long ago (`reason`: Failed, WindowClosed); "
                "or the first request with this Idempotency-Key is still running.",
                413: "The body is larger than 64 KiB.",
                415: "The body is not plain application/json in UTF-8.",
                422: "The Idempotency-Key was used for another cancellation.",
            },
        )
    }

    def __init__(self, ports: ApiPorts) -> None:
        self._cancellations, self._cache = ports.cancellations, ports.cache
        self._writers, self._key_required = ports.writers, ports.key_required

    def on_post(
        self, req: Request, resp: Response, order_id: int, cancellation: CancellationRequest
    ) -> None:
        """Cancel the order once, even if the request is repeated."""
        exchange = exchange_of(req.env)
        exchange.order_id = order_id
        key = idempotency_key(req.env.get("HTTP_IDEMPOTENCY_KEY"), required=self._key_required)
        request = CancellationCommand(
            order_id=order_id,
            subject=exchange.caller.subject,
            everyones=exchange.caller.sees_everything,
            principal=principal(exchange.caller),
            key=key,
            note=cancellation.reason or None,
        )
        cancelled = self._cancel(exchange, request)
        if cancelled.order is not None:
            exchange.user_id = cancelled.order.user_id
            # Before the answer, so that later requests see the new version.
            self._cache.put(snapshot(cancelled.order))
            mark_owner(self._writers, exchange.caller, cancelled.order.user_id)
        exchange.replayed = cancelled.answer.replayed
        show_answer(resp, cancelled.answer)

    def _cancel(self, exchange: HttpExchange, request: CancellationCommand) -> Cancelled:
        try:
            cancelled = self._cancellations.cancel(request, exchange.context)
        except NotCancellable as error:
            detail = _DETAILS[error.reason]
            raise Refusal(NOT_CANCELLABLE, detail, reason=error.reason) from None
        if cancelled is None:
            raise not_found()
        return cancelled
