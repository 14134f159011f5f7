"""The base of every journey: a new customer with everything needed to buy."""

import datetime as dt
import random
import time
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

import gevent
import msgspec

from loadtest.evidence import ENDED
from loadtest.locusts.client import Client, Reply
from loadtest.locusts.context import Context
from loadtest.locusts.identity import headers
from loadtest.purchase import Purchase
from loadtest.scenario import Crowd

PRODUCTS: Final = range(101, 151)
JSON: Final = {"Content-Type": "application/json"}
_LARGEST_ID: Final = 2**53 - 1
# Retried with the same key: conflict (409), rejected for now (429, 5xx), or no answer.
AGAIN: Final = frozenset({0, 409, 429, 500, 502, 503, 504})
# Final answers to a change of an order: done, done before, refused with a reason.
CHANGED: Final = (200, 202, 409)
_TRIES: Final = 30
_SUPPORTERS: Final = 500
_PAUSE_S: Final = 0.5


class Accepted(msgspec.Struct, rename="camel"):
    """The answer to a POST."""

    order_id: int


class ProblemDocument(msgspec.Struct):
    """A problem document; `reason` tells why a change is refused permanently."""

    reason: str | None = None


class OrderView(msgspec.Struct, rename="camel"):
    """An order as the API shows it."""

    id: int
    user_id: int
    product_id: int
    quantity: int
    total: Decimal
    status: str
    created_at: dt.datetime
    updated_at: dt.datetime
    refunded: Decimal | None = None

    def is_of(self, purchase: Purchase) -> bool:
        """Return whether the order matches a purchase: owner, product, quantity and total."""
        content = self.user_id, self.product_id, self.quantity, self.total
        bought = purchase.user, purchase.product, purchase.quantity, purchase.total
        return self.id in purchase.order_ids and content == bought


class Journey:
    """One customer for one journey, with a separate principal."""

    def __init__(
        self, run: Context, crowd: Crowd, client: Client, *, closing: Callable[[], bool]
    ) -> None:
        """Choose an identity; once `closing` returns true, no new purchase starts."""
        self.run, self.crowd, self.client, self.closing = run, crowd, client, closing
        self.known_as(random.randint(1, _LARGEST_ID))

    def another(self) -> "Journey":
        """Return the journey of another new customer over the same connections."""
        return Journey(self.run, self.crowd, self.client, closing=self.closing)

    def known_as(self, user: int) -> None:
        """Set the customer's identity."""
        self.user = user
        self.headers = headers(self.run.signing, str(user), self.run.baggage)

    def purchase(self) -> Purchase:
        """Choose something to buy."""
        return Purchase(
            key=f"{self.run.run}-{uuid.uuid4().hex[:20]}",
            user=self.user,
            product=self.crowd.product or random.choice(PRODUCTS),
            quantity=1,
            cents=random.randint(100, 50_000),
            declined=random.random() < self.crowd.declined,
        )

    def get(self, name: str, path: str, expect: tuple[int, ...] = (200,)) -> Reply:
        """Send a GET as this customer."""
        return self.client.send(name, "GET", path, expect=expect, headers=self.headers)

    def look(self, name: str, purchase: Purchase, order_id: int) -> OrderView | None:
        """Read the order of a purchase; None if there was no answer or the contents differ."""
        reply = self.get(name, f"/api/orders/{order_id}")
        if reply.status != 200:
            return None
        view = reply.decode(OrderView)
        if view.id == order_id and view.is_of(purchase):
            return view
        self.client.wrong(name, "not what was bought")
        return None

    def post(
        self,
        name: str,
        purchase: Purchase,
        expect: tuple[int, ...],
        body: bytes | None = None,
        names: Mapping[int, str] | None = None,
    ) -> Reply:
        """Send a purchase once and record the answer; `names` are the client's."""
        fields = JSON | {"Idempotency-Key": purchase.key}
        reply = self.client.send(
            name, "POST", "/api/orders", expect=expect,
            headers=self.headers | fields, data=body or purchase.body, names=names,
        )  # fmt: skip
        if reply.status == 202:
            order_id = reply.decode(Accepted).order_id
            if order_id not in purchase.order_ids:
                purchase.order_ids.append(order_id)
        return reply

    def buy(self, purchase: Purchase, refusals: tuple[int, ...] = (400,)) -> int | None:
        """Send a purchase until the answer is final; return the order's id if it was accepted."""
        for _ in range(_TRIES):
            reply = self.post("create", purchase, (202, 409, *refusals))
            if reply.status not in AGAIN:
                break
            gevent.sleep(_retry_after_s(reply))
        if reply.status not in (202, *AGAIN):
            purchase.refused = reply.status
        return purchase.order_ids[0] if purchase.order_ids else None

    def watch(self, purchase: Purchase, order_id: int, patience_s: float) -> None:
        """Poll an order, at growing intervals, until it ends or the time is over."""
        pause_s, deadline = 0.25, time.monotonic() + patience_s
        while time.monotonic() < deadline and not self.closing():
            gevent.sleep(pause_s)
            if view := self.look("poll", purchase, order_id):
                purchase.ended = view.status
            if purchase.ended in ENDED:
                return
            pause_s = min(pause_s * 1.5, 2.0)

    def as_staff(self) -> dict[str, str]:
        """Return the headers of one of the service's staff, each with a limit of their own."""
        subject = f"support-{random.randrange(_SUPPORTERS)}"
        return headers(
            self.run.signing, subject, self.run.baggage, "orders:read orders:write orders:admin"
        )

    def change(
        self, name: str, path: str, headers: dict[str, str], body: bytes | None = None
    ) -> Reply:
        """Request a change of an order until the answer is final, or give up.

        Without an Idempotency-Key among the headers, it is sent only once.
        """
        for _ in range(_TRIES if "Idempotency-Key" in headers else 1):
            reply = self.client.send(
                name, "POST", path, expect=CHANGED, headers=headers, data=body or b""
            )
            if reply.status not in AGAIN or (reply.status == 409 and refusal(reply)):
                break
            gevent.sleep(_retry_after_s(reply))
        return reply

    def settle(self, purchase: Purchase) -> None:
        """Report a purchase in every case, even while this user is being stopped."""
        self.run.tally.purchase(purchase)


def refusal(reply: Reply) -> str | None:
    """Return why a change was refused permanently; None if it can be retried."""
    return reply.decode(ProblemDocument).reason if reply.status == 409 else None


def _retry_after_s(reply: Reply) -> float:
    seconds: Any = reply.headers.get("Retry-After")
    return min(float(seconds), 5.0) if seconds and str(seconds).isdigit() else _PAUSE_S
