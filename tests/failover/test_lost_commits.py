"""Commits that a failover loses are done again outside under the same keys.

With asynchronous replication a promotion takes the database back in time, while Payment and
Inventory remember. What is done again must meet what was done before.
"""

from collections.abc import Callable, Iterator

import pytest

from failover import promotions, stack
from failover.clients import Accepted
from failover.history import History
from failover.runs import Run, broken_promises
from failover.stack import Stack, wait

Say = Callable[[str], None]
ORDERS = 5
SETTLED_WITHIN_S = 90.0
# What a promotion lost is found again by the sweeper.
SETTINGS = {"ORDERS_WORKER_STALLED_AFTER_S": "3", "ORDERS_WORKER_SWEEP_S": "1"}

pytestmark = pytest.mark.failover


@pytest.fixture
def on() -> Iterator[Stack]:
    with stack.running(SETTINGS, standbys=1, synchronous=False) as running:
        yield running


def accepted(on: Stack, history: History) -> list[Accepted]:
    """Place orders without a worker, and wait until the standby has them."""
    on.proxies["rabbitmq"].cut()
    [customer, *_] = promotions.crowd(on, history, 1).customers
    orders = [customer.place(with_key=True) for _ in range(ORDERS)]
    wait(lambda: caught_up(on), 30, "the standby has the orders")
    return [order for order in orders if order is not None]


def caught_up(on: Stack) -> bool:
    """Return whether the standby has replayed everything."""
    query = "SELECT bool_and(replay_lsn = pg_current_wal_lsn()) FROM pg_stat_replication"
    return on.databases.leader.scalar(query) is True


def test_an_order_whose_charge_was_forgotten_is_charged_once(on: Stack, say: Say) -> None:
    run = Run(on, "charges forgotten", "make failover ARGS='-k charge_was_forgotten'", say)
    orders = accepted(on, run.history)
    assert len(orders) == ORDERS
    on.databases.cut_replication()
    on.proxies["rabbitmq"].heal()
    query = "SELECT count(*) FROM orders WHERE status IN ('Completed', 'Failed')"
    wait(lambda: on.rows(query) == [(ORDERS,)], 60, "every order ended on the old primary")
    fault = promotions.promote(on, run.history, "kill -9")
    fault.ended_s = fault.moved_s
    assert broken_promises(run.conclude(SETTLED_WITHIN_S)) == {}
