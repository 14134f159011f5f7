"""After the load: what is this run's own in ledgers that other runs wrote into, too."""

from collections.abc import Sequence

import pytest

from load.stories import books, order, purchase
from loadtest import settle
from loadtest.books import Order
from loadtest.purchase import Purchase
from loadtest.target import orders, simulators
from loadtest.target.place import Place

PLACE = Place(host="http://localhost", inventory="http://inventory", payment="http://payment")


class Known:
    """The orders of the second run."""

    whole = True
    after = 2

    def read(self, purchases: Sequence[Purchase]) -> dict[int, Order]:
        return {one.order_ids[0]: order(one.order_ids[0]) for one in purchases}


@pytest.fixture(autouse=True)
def ledgers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold two orders of an earlier run, and the one of this run."""
    kept = books(order(1), order(2), order(3))
    monkeypatch.setattr(simulators, "payments", lambda _: kept.payments)
    monkeypatch.setattr(simulators, "reservations", lambda _: kept.reservations)


def test_what_an_earlier_run_sold_is_not_counted_again() -> None:
    kept, findings, _ = settle.settle(PLACE, Known(), [purchase(3)], {101: 1}, 5)
    assert [one for one in findings if not one.holds] == []
    assert kept.reservations is not None
    assert [one.order_id for one in kept.reservations] == [3]


def test_the_last_order_before_a_run_is_found_in_the_ledgers() -> None:
    assert orders.last_order(PLACE) == 3
    assert orders.last_order(Place(host="http://localhost")) == 0
