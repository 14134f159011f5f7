"""Customers that do all that customers do, from placing an order to asking its money back."""

import itertools
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any, Final

from failover.clients import Accepted, Customer, Pace, order_of
from failover.history import NO_ANSWER, Entry, History

_WALK_SIZE: Final = 7
_MOST_PAGES: Final = 400
_RECENT: Final = 6
# Kept when a plan has a customer do more at once.
_REFUND_SHARES: Final = (0.2, 0.34, 1.0)
_RETRIED: Final = frozenset({NO_ANSWER, 409, 429, 500, 502, 503, 504})


class Haste:
    """The customers' speed-up over the usual pace; faults of load change it."""

    def __init__(self) -> None:
        self.factor = 1.0


class Shopper(Customer):
    """A client that also cancels, asks for refunds, walks its list and looks at histories."""

    def __init__(
        self,
        user: int,
        port: int,
        marks: Iterator[int],
        history: History,
        pace: Pace,
        haste: Haste | None = None,
    ) -> None:
        super().__init__(user, port, marks, history, pace)
        self._haste = haste or Haste()
        self._walks = itertools.count()

    def shop(self) -> None:
        """Act as a customer until the faults are over, then place a last order."""
        while not self.stopping.is_set():
            order = self._buy()
            if order is not None:
                self.look(order)
                self._change_mind(order)
            pause_s = self._chance.uniform(self._pace.least_s, self._pace.most_s)
            self.stopping.wait(pause_s / self._haste.factor)
        self.place(with_key=True)

    def look(self, order: Accepted) -> None:
        """Read what was just written and what others may have moved."""
        if self._chance.random() < 0.3:
            self.list()
        if self._chance.random() < 0.3:
            self.look_twice_at_once(order)
        else:
            super().look(order)
        chance = self._chance.random()
        if chance < 0.12:
            self.walk()
        elif chance < 0.24:
            self.see_history(self._chance.choice(self.orders))
        elif chance < 0.30 and order.key is not None:
            self.reuse(order)
        for recent in self.orders[-3:]:
            self.read(recent)

    def _buy(self) -> Accepted | None:
        if self._chance.random() < 0.15:
            return self.place_twice_at_once()
        return self.place(with_key=self._chance.random() < 0.6)

    def _change_mind(self, order: Accepted) -> None:
        chance = self._chance.random()
        if chance < 0.12:
            self.cancel(order)
        elif chance < 0.30:
            self.cancel(self._chance.choice(self.orders[-_RECENT:]))
        elif chance < 0.42:
            self._ask_back(order)
        elif chance < 0.70:
            self._ask_back(self._chance.choice(self.orders[-2 * _RECENT :]))

    def _ask_back(self, order: Accepted) -> None:
        if self._chance.random() < 0.3:
            self.refund_twice_at_once(order)
        else:
            self.refund(order, self._chance.choice(_REFUND_SHARES))

    def look_twice_at_once(self, order: Accepted) -> None:
        """Read an order while something else that reads it takes its time."""
        other = threading.Thread(target=self.read, args=(order,))
        other.start()
        super().look(order)
        self.read(order)
        other.join()

    def refund_twice_at_once(self, order: Accepted) -> None:
        """Request two partial refunds at the same time."""
        other = threading.Thread(target=self.refund, args=(order, _REFUND_SHARES[0]))
        other.start()
        self.refund(order, _REFUND_SHARES[1])
        other.join()

    def place_twice_at_once(self) -> Accepted | None:
        """Send one order twice under one key at the same time; then as `place` does."""
        mark, key = next(self._marks), uuid.uuid4().hex
        other = threading.Thread(target=self._post, args=("place", mark, key))
        other.start()
        order = self.place_under(mark, key)
        other.join()
        return order

    def cancel(self, order: Accepted) -> Entry:
        """Cancel an order, with or without a key; again until there is an answer."""
        key = uuid.uuid4().hex if self._chance.random() < 0.5 else None
        path = f"/api/orders/{order.order_id}/cancellation"
        return self._until_answered("cancel", path, {}, mark=order.mark, key=key, order=order)

    def refund(self, order: Accepted, share: float) -> Entry:
        """Request a partial refund; without a key only once."""
        cents = max(1, round(order.mark * share))
        key = uuid.uuid4().hex if self._chance.random() < 0.7 else None
        path = f"/api/orders/{order.order_id}/refunds"
        body = {"amount": cents / 100}
        return self._until_answered(
            "refund", path, body, mark=order.mark, key=key, order=order, amount=cents
        )

    def reuse(self, order: Accepted) -> Entry:
        """Send another order under a key that was used."""
        body = order_of(order.mark, self.user) | {"quantity": 7}
        facts: dict[str, Any] = {"mark": order.mark, "key": order.key}
        return self._send("reuse", "POST", "/api/orders", body, **facts)

    def walk(self) -> None:
        """Follow the list from its first page to its last."""
        number = next(self._walks)
        path: str | None = f"/api/orders/user/{self.user}?pageSize={_WALK_SIZE}"
        for _ in range(_MOST_PAGES):
            if path is None or self.stopping.is_set():
                return
            page = self._send("walk", "GET", path, walk=number)
            if page.status != 200:
                return
            path = page.link

    def see_history(self, order: Accepted) -> Entry:
        """Read the history of an order."""
        path = f"/api/orders/{order.order_id}/history"
        return self._send("history", "GET", path, mark=order.mark, order_id=order.order_id)

    def look_finally(self, order: Accepted) -> Entry:
        """Read an order when nothing moves any more."""
        path = f"/api/orders/{order.order_id}"
        return self._send("final", "GET", path, mark=order.mark, order_id=order.order_id)

    def _until_answered(
        self, action: str, path: str, body: Any, *, order: Accepted, key: str | None, **facts: Any
    ) -> Entry:
        until_s = time.monotonic() + self._pace.give_up_after_s
        while True:
            entry = self._send(
                action, "POST", path, body, key=key, order_id=order.order_id, **facts
            )
            may_repeat = action == "cancel" or key is not None or entry.retry_after is not None
            busy = entry.status == 409 and entry.retry_after is None
            if busy or not may_repeat or entry.status not in _RETRIED or time.monotonic() > until_s:
                return entry
            time.sleep(min(float(entry.retry_after or 0.5), 5.0))
