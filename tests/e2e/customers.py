"""Customers who buy while a block runs, and the books that their orders must agree with."""

import itertools
import time
import uuid
from collections import Counter
from typing import Final, Self

import requests

from loadtest.invariants import InvariantCheck
from loadtest.purchase import Purchase
from loadtest.repeating import Repeating
from loadtest.settle import settle
from loadtest.target.addresses import Target
from loadtest.target.orders import InDatabase

_ATTEMPTS: Final = 120
_AGAIN_S: Final = 0.5
_SETTLE_S: Final = 300.0
_REFUSALS: Final = frozenset({400, 422})


class Customers:
    """Buy as good clients do: with a key, and again until the answer is a yes or a no.

    `answers` counts what they met, a refused connection by its kind.
    """

    def __init__(self, target: Target, count: int = 4, pause_s: float = 0.1) -> None:
        self._target = target
        self._run = uuid.uuid4().hex[:8]
        self._users = itertools.count(1_000_000)
        self._threads = Repeating(*[self.buy] * count, pause_s=pause_s)
        self.purchases: list[Purchase] = []
        self.answers: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._threads.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.stop()

    @property
    def accepted(self) -> int:
        """The number of orders answered with 202."""
        return sum(bool(purchase.order_ids) for purchase in self.purchases)

    def books(self) -> list[InvariantCheck]:
        """Wait until every order has ended; return what speaks against the service."""
        assert self._target.database is not None
        orders = InDatabase(self._target.database, self._run)
        _, findings, _ = settle(self._target, orders, self.purchases, {}, _SETTLE_S)
        assert all(finding.checked for finding in findings), findings
        return [finding for finding in findings if not finding.holds]

    def buy(self) -> Purchase:
        """Place one order, however often it takes."""
        number = next(self._users)
        wish = Purchase(
            key=f"{self._run}-{number}", user=number, product=101, quantity=1, cents=1990
        )
        self.purchases.append(wish)
        with requests.Session() as session:
            for _ in range(_ATTEMPTS):
                if self._answered(session, wish):
                    return wish
                time.sleep(_AGAIN_S)
        return wish

    def _answered(self, session: requests.Session, wish: Purchase) -> bool:
        headers = {"Content-Type": "application/json", "Idempotency-Key": wish.key}
        url = f"{self._target.host}/api/orders"
        try:
            answer = session.post(url, data=wish.body, headers=headers, timeout=15)
        except requests.RequestException as error:
            self.answers[type(error).__name__] += 1
            return False
        self.answers[str(answer.status_code)] += 1
        if answer.status_code == 202:
            wish.order_ids.append(answer.json()["orderId"])
            return True
        if answer.status_code in _REFUSALS:
            wish.refused = answer.status_code
            return True
        return False
