"""Journeys with reversals: concurrent cancellations, and partial refunds."""

import random
from typing import Final

import gevent
import msgspec
from gevent.pool import Group

from loadtest.locusts.client import Reply
from loadtest.locusts.journey import JSON, Journey, refusal
from loadtest.purchase import Cancellation, Purchase, Refund

_PATIENCE_S: Final = 8.0
# Payment's latency in the scenario: cancellations are sent before, at and after this time.
_AROUND_PAYMENT_S: Final = 0.5
_ACCEPTED: Final = (200, 202)
_PART: Final = 0.45  # of the total: three of them exceed it


class Changed(msgspec.Struct):
    """The answer to a change of an order."""

    status: str


def cancel(journey: Journey) -> None:
    """Buy something and cancel it with concurrent requests, around the moment of its payment."""
    purchase = journey.purchase()
    try:
        order_id = journey.buy(purchase)
        if order_id is not None:
            _await_moment(journey, purchase, order_id)
            _cancel_at_once(journey, purchase, order_id)
            journey.watch(purchase, order_id, _PATIENCE_S)
    finally:
        journey.settle(purchase)


def _await_moment(journey: Journey, purchase: Purchase, order_id: int) -> None:
    """Wait for one of three moments: right away, around the payment, after the end."""
    match random.randrange(3):
        case 1:
            gevent.sleep(random.uniform(0, _AROUND_PAYMENT_S))
        case 2:
            journey.watch(purchase, order_id, _PATIENCE_S)


def _cancel_at_once(journey: Journey, purchase: Purchase, order_id: int) -> None:
    """Cancel as customer with one key, twice with a second key, and without a key; also as support.

    Then repeat the second key: the answer must be the same as before.
    """
    key_of_two, customer = f"{purchase.key}-twice", journey.headers
    callers = (
        (customer, key_of_two), (customer, key_of_two), (customer, f"{purchase.key}-other"),
        (customer, None), (journey.as_staff(), f"{purchase.key}-staff"),
    )  # fmt: skip
    group = Group()
    for headers, key in callers:
        group.spawn(_ask_to_cancel, journey, purchase, order_id, headers, key)
    group.join(raise_error=True)
    _ask_to_cancel(journey, purchase, order_id, customer, key_of_two)
    answers = {
        (cancellation.status, cancellation.order_status, cancellation.reason)
        for cancellation in purchase.cancellations
        if cancellation.key == key_of_two and cancellation.status
    }
    if len(answers) > 1:
        journey.client.wrong("cancel", "one key, two answers")


def _ask_to_cancel(
    journey: Journey, purchase: Purchase, order_id: int, headers: dict[str, str], key: str | None
) -> None:
    cancellation = Cancellation(key=key)
    purchase.cancellations.append(cancellation)
    path = f"/api/orders/{order_id}/cancellation"
    reply = journey.change("cancel", path, headers | _keyed(key))
    if reply.status in _ACCEPTED:
        cancellation.status, cancellation.order_status = reply.status, reply.decode(Changed).status
    elif reason := refusal(reply):
        cancellation.status, cancellation.reason = reply.status, reason


def refund(journey: Journey) -> None:
    """Buy something; support refunds it in concurrent parts, and sometimes the rest."""
    purchase = journey.purchase()
    try:
        order_id = journey.buy(purchase)
        if order_id is not None:
            journey.watch(purchase, order_id, _PATIENCE_S)
            if purchase.ended == "Completed":
                _refund_at_once(journey, purchase, order_id)
                _finish(journey, purchase, order_id)
    finally:
        journey.settle(purchase)


def _refund_at_once(journey: Journey, purchase: Purchase, order_id: int) -> None:
    """Request refunds of more than was paid: one part twice with one key, another with two keys."""
    cents, staff = int(purchase.cents * _PART), journey.as_staff()
    keys = (f"{purchase.key}-{suffix}" for suffix in ("1", "1", "2", "3"))
    requests = [Refund(key=key, cents=cents) for key in keys]
    group = Group()
    for request in requests:
        group.spawn(_ask_to_refund, journey, purchase, order_id, request, staff)
    group.join(raise_error=True)
    if all(request.status == 202 for request in requests):
        journey.client.wrong("refund", "more than was paid")


def _finish(journey: Journey, purchase: Purchase, order_id: int) -> None:
    """Do nothing, refund the rest, or cancel as the customer."""
    staff = journey.as_staff()
    match random.randrange(3):
        case 1:
            promised = {
                request.key: request.cents for request in purchase.refunds if request.status == 202
            }
            remainder = Refund(
                key=f"{purchase.key}-rest", cents=purchase.cents - sum(promised.values())
            )
            _ask_to_refund(journey, purchase, order_id, remainder, staff)
            excess = Refund(key=f"{purchase.key}-more", cents=1)
            if _ask_to_refund(journey, purchase, order_id, excess, staff).status == 202:
                journey.client.wrong("refund", "more than was paid")
        case 2:
            key = f"{purchase.key}-cancel"
            _ask_to_cancel(journey, purchase, order_id, journey.headers, key)


def _ask_to_refund(
    journey: Journey, purchase: Purchase, order_id: int, request: Refund, staff: dict[str, str]
) -> Reply:
    purchase.refunds.append(request)
    body = f'{{"amount":{request.cents / 100:.2f}}}'.encode()
    path = f"/api/orders/{order_id}/refunds"
    reply = journey.change("refund", path, staff | JSON | _keyed(request.key), body)
    request.reason = refusal(reply)
    if reply.status == 202 or request.reason:
        request.status = reply.status
    return reply


def _keyed(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Idempotency-Key": key}
