"""Writers wake the relay: after their commit, and no more often than useful."""

import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal

import psycopg
import pytest

from integration.handles import Database
from integration.serving import eventually
from integration.stores import cancellations_on, orders_on
from orders.database.cancellations import CancellationCommand
from orders.database.pool import Pool
from orders.database.progress import Advance, Progress, ProgressSets, Step
from orders.domain.lifecycle import Event, transition
from orders.domain.order import NewOrder
from orders.settings import DatabaseSettings
from orders.telemetry import context

ORDER = NewOrder(7, 1, 2, Decimal("19.90"), "card")
CONTEXT, _ = context.accept("test", None)


class Listener:
    """A session that listens as the relay does."""

    def __init__(self, url: str) -> None:
        self._session = psycopg.connect(url, autocommit=True)
        self._session.execute("LISTEN outbox")
        self.payloads: list[str] = []

    def close(self) -> None:
        self._session.close()

    def count(self) -> int:
        """Take in what has arrived, and count it."""
        self.payloads += [notice.payload for notice in self._session.notifies(timeout=0.01)]
        return len(self.payloads)


@pytest.fixture
def listener(database: Database) -> Iterator[Listener]:
    with closing(Listener(database.url)) as listener:
        yield listener


@pytest.fixture
def pool(database: Database) -> Iterator[Pool]:
    pool = Pool(database.url, DatabaseSettings(url=database.url), "test")
    pool.open()
    with closing(pool):
        yield pool


def accept(pool: Pool) -> int:
    answer = orders_on(pool).accept(ORDER, CONTEXT, "u:7", None)
    assert answer.order_id is not None
    return answer.order_id


def ask_for(pool: Pool, *, idle: bool) -> None:
    with pool.connection() as connection:
        connection.execute("UPDATE relay_wakeup SET idle = %s", (idle,))


def test_every_writer_of_a_message_wakes_a_relay_that_sleeps(
    pool: Pool, listener: Listener
) -> None:
    ask_for(pool, idle=False)
    first, second = accept(pool), accept(pool)
    ask_for(pool, idle=True)
    accept(pool)
    eventually(lambda: listener.count() == 1)
    cancellations_on(pool, 60).cancel(CancellationCommand(first, None, True, None), CONTEXT)
    eventually(lambda: listener.count() == 2)
    progress = Progress(pool, "worker")
    work = progress.load(second, "5f0c9d0e-5b8f-4c8e-9e0e-0b3a53f1d0aa")
    assert work is not None
    change = transition(work.order.status, Event.STOCK_REFUSED)
    assert change is not None
    progress.advance(work, change, Step(), CONTEXT)
    eventually(lambda: listener.count() == 3)


def test_a_set_in_which_one_order_has_a_message_wakes_a_relay_that_sleeps(
    pool: Pool, listener: Listener
) -> None:
    ask_for(pool, idle=False)
    progress = ProgressSets(pool, "worker")
    first, second = progress.load({accept(pool): str(uuid.uuid4()) for _ in range(2)}).values()
    ask_for(pool, idle=True)
    change = transition(first.order.status, Event.STOCK_REFUSED)
    reserved = transition(second.order.status, Event.STOCK_RESERVED)
    assert change is not None
    assert reserved is not None
    advances = [
        Advance(first, change, Step(), CONTEXT),
        Advance(second, reserved, Step(), CONTEXT),
    ]
    assert len(progress.advance(advances)) == 2
    eventually(lambda: listener.count() == 1)


def test_a_relay_that_is_awake_is_not_woken(pool: Pool, listener: Listener) -> None:
    ask_for(pool, idle=False)
    for _ in range(3):
        accept(pool)
    ask_for(pool, idle=True)
    accept(pool)
    eventually(lambda: listener.count() > 0)
    with pool.connection() as connection:
        connection.execute(b"NOTIFY outbox, 'end'")
    eventually(lambda: listener.count() > 1)
    assert listener.payloads == ["", "end"]


def test_a_relay_that_died_asleep_costs_few_notifications_and_the_last_order_has_one(
    pool: Pool, listener: Listener
) -> None:
    ask_for(pool, idle=True)
    began_s = time.monotonic()
    for _ in range(100):
        accept(pool)
    count_before = listener.count()
    accept(pool)
    eventually(lambda: listener.count() > count_before)
    assert listener.count() <= (time.monotonic() - began_s) / 0.04 + 1
