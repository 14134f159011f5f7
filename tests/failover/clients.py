"""Customers that place, repeat, read and list orders, and write down all they saw.

Each order carries a mark, a number that is unique in a run: it is the order's total in cents, its
product and its payment method, so that the database and the ledgers of Payment and Inventory tell
for whom something was done, whatever id it was done under.
"""

import http.client
import itertools
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, Self

import msgspec

from failover.history import NO_ANSWER, Entry, History

FIRST_MARK: Final = 100_000
FIRST_USER: Final = 50_001
PAGE_SIZE: Final = 50
# Above every product that the simulators know by number.
_PRODUCTS: Final = 10_000_000
_DECLINE_EVERY: Final = 10
_ACCEPTED: Final = 202
_REFUSED: Final = frozenset({400, 401, 403, 404, 422})


class Accepted(NamedTuple):
    """An order that was accepted."""

    order_id: int
    mark: int
    key: str | None


class Pace(NamedTuple):
    """A customer's pauses and patience, in seconds."""

    least_s: float = 0.2
    most_s: float = 0.6
    answer_within_s: float = 20.0
    give_up_after_s: float = 120.0


def order_of(mark: int, user: int) -> dict[str, Any]:
    """Return the body of the order with this mark."""
    decline = "decline-" if mark % _DECLINE_EVERY == 0 else ""
    return {
        "userId": user,
        "productId": _PRODUCTS + mark,
        "quantity": 1 + mark % 3,
        "total": mark / 100,
        "paymentMethod": f"{decline}m{mark}",
    }


def mark_of_total(total: Any) -> int:
    """Return the mark of an order with this total."""
    return round(float(total) * 100)


def mark_of_product(product_id: int) -> int:
    """Return the mark of an order of this product; zero or negative if no client has it."""
    return product_id - _PRODUCTS


class Customer:
    """One client: one request at a time."""

    def __init__(
        self, user: int, port: int, marks: Iterator[int], history: History, pace: Pace
    ) -> None:
        self.user, self._port, self._marks = user, port, marks
        self._history, self._pace = history, pace
        self._numbers = itertools.count()
        self._chance = random.Random(user)
        self.orders: list[Accepted] = []
        self.stopping = threading.Event()

    def shop(self) -> None:
        """Place and read orders until `stopping` is set."""
        while not self.stopping.is_set():
            order = self.place(with_key=self._chance.random() < 0.6)
            if order is not None:
                self.look(order)
            self.stopping.wait(self._chance.uniform(self._pace.least_s, self._pace.most_s))

    def look(self, order: Accepted) -> None:
        """Read what was just written, and something older."""
        self.read(order)
        if self._chance.random() < 0.5:
            self.list()
        if order.key is not None and self._chance.random() < 0.3:
            self.repeat(order)
        self.read(self._chance.choice(self.orders))

    def place(self, *, with_key: bool) -> Accepted | None:
        """Place one order, as a good client does.

        With a key it is sent again until there is an answer. Without one it is sent again only
        when the answer asks for that with Retry-After.
        """
        return self.place_under(next(self._marks), uuid.uuid4().hex if with_key else None)

    def place_under(self, mark: int, key: str | None) -> Accepted | None:
        """Place the order of a mark, as `place` does."""
        until = time.monotonic() + self._pace.give_up_after_s
        while time.monotonic() < until:
            entry = self._post("place", mark, key)
            if entry.status == _ACCEPTED and entry.order_id is not None:
                order = Accepted(entry.order_id, mark, key)
                self.orders.append(order)
                return order
            if entry.status in _REFUSED or (key is None and entry.retry_after is None):
                return None
            # A customer who is told to stop still wants to know what became of the order.
            time.sleep(min(float(entry.retry_after or 0.5), 5.0))
        return None

    def repeat(self, order: Accepted) -> Entry:
        """Send an accepted order once more under its key."""
        return self._post("repeat", order.mark, order.key)

    def read(self, order: Accepted) -> Entry:
        """Read an order of this user and record the answer."""
        path = f"/api/orders/{order.order_id}"
        return self._send("read", "GET", path, mark=order.mark, order_id=order.order_id)

    def list(self) -> Entry:
        """Read the first page of the own list."""
        return self._send("list", "GET", f"/api/orders/user/{self.user}?pageSize={PAGE_SIZE}")

    def _post(self, action: str, mark: int, key: str | None) -> Entry:
        return self._send(
            action, "POST", "/api/orders", order_of(mark, self.user), mark=mark, key=key
        )

    def _send(self, action: str, method: str, path: str, body: Any = None, **facts: Any) -> Entry:
        sent_s = time.time()
        entry = Entry(
            client=self.user, number=next(self._numbers), action=action,
            sent_s=sent_s, answered_s=sent_s, **facts,
        )  # fmt: skip
        try:
            self._exchange(entry, method, path, body)
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            entry.status, entry.error = NO_ANSWER, f"{type(error).__name__}: {error}"
        entry.answered_s = time.time()
        self._history.add(entry)
        return entry

    def _exchange(self, entry: Entry, method: str, path: str, body: Any) -> None:
        connection = http.client.HTTPConnection(
            "127.0.0.1", self._port, timeout=self._pace.answer_within_s
        )
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if entry.key is not None:
            headers["Idempotency-Key"] = entry.key
        try:
            connection.request(method, path, body and msgspec.json.encode(body), headers)
            response = connection.getresponse()
            raw = response.read()
        finally:
            connection.close()
        entry.status, entry.retry_after = response.status, response.headers.get("Retry-After")
        entry.replayed = response.headers.get("Idempotency-Replayed") == "true"
        entry.version = _version(response.headers.get("ETag"))
        entry.link = _target(response.headers.get("Link"))
        entry.body = msgspec.json.decode(raw) if raw else None
        if entry.status == _ACCEPTED and isinstance(entry.body, dict):
            entry.order_id = entry.body.get("orderId")


def _version(etag: str | None) -> int | None:
    """Read the version out of an entity tag like `"v3"`."""
    text = (etag or "").strip('"').removeprefix("v")
    return int(text) if text.isdecimal() else None


def _target(link: str | None) -> str | None:
    """Read the target out of a Link header with one link."""
    match = re.match("<([^>]+)>", link or "")
    return match[1] if match else None


class Crowd:
    """Customers that shop side by side while the block runs."""

    def __init__(
        self,
        port: int,
        history: History,
        size: int,
        marks: Iterator[int],
        first_user: int = FIRST_USER,
        pace: Pace | None = None,
        kind: "Callable[[int, int, Iterator[int], History, Pace], Customer] | None" = None,
    ) -> None:
        """Make `size` customers; `kind` makes one where they do more than place and look."""
        self.customers = [
            (kind or Customer)(first_user + number, port, marks, history, pace or Pace())
            for number in range(size)
        ]
        self._history = history
        self._threads = [
            threading.Thread(target=customer.shop, name=f"customer-{customer.user}", daemon=True)
            for customer in self.customers
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for customer in self.customers:
            customer.stopping.set()
        if kind is KeyboardInterrupt:
            return  # nobody waits for answers any more
        for thread in self._threads:
            thread.join()

    def writers_since(self, moment_s: float) -> set[int]:
        """Return the clients with an accepted order whose answer came after a moment."""
        return {
            entry.client
            for entry in self._history.snapshot()
            if entry.action == "place" and entry.status == _ACCEPTED
            if entry.answered_s > moment_s
        }

    def all_wrote_since(self, moment_s: float) -> bool:
        """Return whether every client has had an order accepted after a moment."""
        return len(self.writers_since(moment_s)) == len(self.customers)
