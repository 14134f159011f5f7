"""The announcement of writes that could not be marked: waited for once, seen by every process."""

import time
from collections.abc import Callable, Iterator

import pytest

from integration.handles import Database
from integration.serving import eventually
from machine_time import machine_time_s
from orders.database.pool import Pool
from orders.database.routing import ReplicaLag
from orders.database.unmarked import UnmarkedWrites
from orders.settings import DatabaseSettings

KEEP_S, MAX_LAG_S = 1.0, 0.4


@pytest.fixture
def pool(database: Database) -> Iterator[Pool]:
    """Yield connections to the primary."""
    primary = Pool(database.url, DatabaseSettings(url=database.url), "test")
    primary.open()
    yield primary
    primary.close()


def unmarked(pool: Pool) -> UnmarkedWrites:
    return UnmarkedWrites(pool, keep_s=KEEP_S, max_lag_s=MAX_LAG_S)


def took_s(announcement: UnmarkedWrites, clock: Callable[[], float] = time.monotonic) -> float:
    began_s = clock()
    announcement.announce()
    return clock() - began_s


def test_only_the_first_announcement_is_waited_for(pool: Pool) -> None:
    writes = unmarked(pool)
    assert took_s(writes) >= MAX_LAG_S
    start_s, waits = time.monotonic(), []
    while time.monotonic() - start_s < 2 * KEEP_S:  # it is renewed meanwhile
        waits.append(took_s(writes, machine_time_s))
        time.sleep(0.02)
    assert sum(wait >= MAX_LAG_S for wait in waits) == 0


def test_one_that_lapsed_is_waited_for_again(pool: Pool) -> None:
    writes = unmarked(pool)
    writes.announce()
    time.sleep(KEEP_S * 1.1)
    assert took_s(writes) >= MAX_LAG_S


def test_every_process_knows_it_before_the_wait_is_over(pool: Pool, database: Database) -> None:
    settings = DatabaseSettings(url=database.url, replica_url=database.replica_url)
    lag = ReplicaLag(settings)
    lag.start()
    try:
        eventually(lambda: lag.lag_s() < MAX_LAG_S and not lag.unmarked_writes)
        unmarked(pool).announce()
        assert lag.unmarked_writes or lag.lag_s() > MAX_LAG_S
        eventually(lambda: lag.unmarked_writes)
        announced = time.monotonic()
        eventually(lambda: not lag.unmarked_writes)
        assert time.monotonic() - announced >= KEEP_S
    finally:
        lag.stop()
