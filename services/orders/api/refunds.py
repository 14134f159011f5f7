"""`/api/orders/{id}/refunds`: refund a completed order, in part or in whole. For support."""

from decimal import Decimal
from typing import Any, Final

import msgspec
from falcon import Request, Response

from orders.api import changes
from orders.api.changes import RefundRequest, mark_owner, principal
from orders.api.orders import ORDER_LOCATION, show_answer
from orders.api.problems import NOT_REFUNDABLE, Refusal, not_found
from orders.api.requests import IDEMPOTENCY_KEY, ORDER_ID, idempotency_key, number
from orders.api.resource import ADMIN, ApiPorts, Arguments, Operation, ResponseDoc, exchange_of
from orders.cache.orders import snapshot
from orders.database.orders import AnswerTemplate
from orders.database.refund_requests import NotRefundable, RefundCommand, Unrefundable
from orders.domain.lifecycle import Status
from orders.domain.order import Id

_DETAILS: Final = {
    Unrefundable.NOT_COMPLETED: "Only a completed order can be refunded.",
    Unrefundable.EXCEEDS_CAPTURE: "The amount exceeds what is left of the payment.",
}


class RefundAnswer(msgspec.Struct, rename="camel", frozen=True):
    """The order while the refund is in progress."""

    # For the documentation: the bytes of REFUND_REQUESTED are stored for replays.
    order_id: Id
    status: Status
    amount: Decimal
    message: str


REFUND_REQUESTED: Final = AnswerTemplate(
    route="POST /api/orders/{id}/refunds",
    location=ORDER_LOCATION,
    body=f'{{"orderId":%s,"status":"{Status.COMPLETED}","amount":%s,'
    '"message":"The refund is on its way"}',
)


def _decode(env: dict[str, Any], path: dict[str, str]) -> Arguments:
    amount, reason = changes.refund(env)
    return {"order_id": number("id", path["id"]), "amount": amount, "reason": reason}


class OrderRefunds:
    """Partial refunds of an order at `/api/orders/{id}/refunds`."""

    operations: Final = {
        "POST": Operation(
            id="refundOrder",
            summary="Refund a part of an order, or all that is left",
            description="For support. Send an Idempotency-Key: without one a repetition pays back "
            "again.",
            action="refund",
            scope=ADMIN,
            decode=_decode,
            recent_write="mark",
            parameters=(ORDER_ID, IDEMPOTENCY_KEY),
            body=RefundRequest,
            answers={
                202: ResponseDoc(
                    description="The refund is in progress; `refunded` of the order shows when it"
                    " was made. An order that is refunded in full is Refunded.",
                    body=RefundAnswer,
                    headers=("Location", "ETag", "Idempotency-Replayed"),
                )
            },
            refusals={
                400: "The request is malformed or invalid.",
                404: "There is no such order.",
                409: "The order is not Completed, or less is left of what was paid (`reason`: "
                "NotCompleted, ExceedsCapture); or the first request with this Idempotency-Key is "
                "still running.",
                413: "The body is larger than 64 KiB.",
                415: "The body is not plain application/json in UTF-8.",
                422: "The Idempotency-Key was used for another refund.",
            },
        )
    }

    def __init__(self, ports: ApiPorts) -> None:
        self._requests, self._cache = ports.refund_requests, ports.cache
        self._writers, self._key_required = ports.writers, ports.key_required

    def on_post(
        self, req: Request, resp: Response, order_id: int, amount: Decimal, reason: str | None
    ) -> None:
        """Request a refund, once per key."""
        exchange = exchange_of(req.env)
        exchange.order_id = order_id
        refund = RefundCommand(
            order_id=order_id,
            amount=amount,
            principal=principal(exchange.caller),
            key=idempotency_key(req.env.get("HTTP_IDEMPOTENCY_KEY"), required=self._key_required),
            note=reason or None,
        )
        try:
            requested = self._requests.add(refund, exchange.context)
        except NotRefundable as error:
            raise Refusal(NOT_REFUNDABLE, _DETAILS[error.reason], reason=error.reason) from None
        if requested is None:
            raise not_found()
        if requested.order is not None:
            self._cache.put(snapshot(requested.order))
            mark_owner(self._writers, exchange.caller, requested.order.user_id)
        exchange.replayed = requested.answer.replayed
        show_answer(resp, requested.answer)
