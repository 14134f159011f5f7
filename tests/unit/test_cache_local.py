"""L1: what a process may serve from its own memory, and what it must not."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from orders.cache.local import KNOWN_S, TRUST_S, CachedOrder, Lease, LocalOrders
from orders.cache.orders import decode, encode
from unit.clock import Clock


def order(version: int, order_id: int = 1, *, terminal: bool = False) -> CachedOrder:
    return CachedOrder(order_id, 7, version, terminal, b'{"version":%d}' % version)


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def local(clock: Clock) -> LocalOrders:
    """Give an L1 that has just been proven."""
    orders = LocalOrders(3, clock)
    orders.prove(clock())
    return orders


def test_serves_what_was_filled(local: LocalOrders) -> None:
    local.fill(order(1), local.lease(1), ttl_s=2)
    assert local.read(1) == order(1)


def test_serves_nothing_once_the_proof_is_older_than_the_trust(
    local: LocalOrders, clock: Clock
) -> None:
    local.fill(order(1), local.lease(1), ttl_s=100)
    clock.now_s += TRUST_S
    assert local.read(1) is None
    assert not local.trusted
    local.prove(clock())
    assert local.read(1) == order(1)


def test_an_entry_ends_with_its_ttl(local: LocalOrders, clock: Clock) -> None:
    local.fill(order(1), local.lease(1), ttl_s=0.5)
    clock.now_s += 0.5
    assert local.read(1) is None


def test_an_invalidation_ends_an_entry(local: LocalOrders) -> None:
    local.fill(order(1), local.lease(1), ttl_s=2)
    local.invalidate(1)
    assert local.read(1) is None


def test_a_change_between_read_and_fill_drops_the_fill(local: LocalOrders) -> None:
    lease = local.lease(1)
    local.invalidate(1)
    local.fill(order(1), lease, ttl_s=2)
    assert local.read(1) is None


def test_a_lost_connection_between_read_and_fill_drops_the_fill(
    local: LocalOrders, clock: Clock
) -> None:
    lease = local.lease(1)
    local.invalidate_all()
    local.prove(clock())
    local.fill(order(1), lease, ttl_s=2)
    assert local.read(1) is None


def test_a_lost_connection_ends_all_entries(local: LocalOrders, clock: Clock) -> None:
    local.fill(order(1), local.lease(1), ttl_s=2)
    local.invalidate_all()
    assert not local.trusted
    local.prove(clock())
    assert local.read(1) is None


def test_an_older_answer_gives_way_to_the_known_version(local: LocalOrders) -> None:
    local.fill(order(5), local.lease(1), ttl_s=2)
    local.invalidate(1)
    assert local.newest(order(4)) == order(5)
    assert local.newest(order(6)) == order(6)


def test_an_older_answer_is_not_filled(local: LocalOrders) -> None:
    local.newest(order(5))
    local.fill(order(4), local.lease(1), ttl_s=2)
    assert local.read(1) is None


def test_a_restored_database_is_believed_in_the_end(local: LocalOrders, clock: Clock) -> None:
    local.newest(order(5))
    clock.now_s += KNOWN_S
    assert local.newest(order(4)) == order(4)


def test_the_least_recently_read_order_makes_room(local: LocalOrders) -> None:
    for order_id in (1, 2, 3):
        local.fill(order(1, order_id), local.lease(order_id), ttl_s=2)
    local.read(1)
    local.fill(order(1, 4), local.lease(4), ttl_s=2)
    assert [order_id for order_id in (1, 2, 3, 4) if local.read(order_id)] == [1, 3, 4]


def test_without_room_nothing_is_kept(clock: Clock) -> None:
    local = LocalOrders(0, clock)
    local.prove(clock())
    local.fill(order(1), local.lease(1), ttl_s=2)
    assert local.read(1) is None
    assert local.newest(order(1)) == order(1)


@pytest.mark.parametrize("body", [b"{}", b"", b'{"a b": "c d"}', b"\x00\xff 1 2 3"])
def test_a_snapshot_survives_redis(body: bytes) -> None:
    snapshot = CachedOrder(3, 9, 12, True, body)
    assert decode(3, encode(snapshot)) == snapshot


@pytest.mark.parametrize("stored", [b"", b"{}", b"1 2 3", b"x 1 0 {}"])
def test_what_is_not_a_snapshot_is_a_miss(stored: bytes) -> None:
    assert decode(3, stored) is None


class Coherence(RuleBasedStateMachine):
    """One L1 against a source of truth: changes are heard late, fills come late, time passes.

    After every step every order is read: current to within a second, not older than what was
    heard of, and never older than before.
    """

    ids = st.integers(1, 3)

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock(1000.0)
        self.local = LocalOrders(2, self.clock)
        self.truth = dict.fromkeys((1, 2, 3), 1)
        self.written_at: dict[tuple[int, int], float] = {}
        self.unheard: list[int] = []
        self.heard = dict(self.truth)
        self.connected = False
        self.fills: list[tuple[CachedOrder, Lease]] = []
        self.last_read = dict.fromkeys((1, 2, 3), 0)
        self.reconnect()
        self.hear_everything_and_prove()

    @invariant()
    def readers_are_served_well(self) -> None:
        assert len(self.local._entries) <= 2
        for order_id in self.truth:
            if order_id not in self.local._entries:
                self.last_read[order_id] = 0  # fell out of the LRU, so it is not known any more
            entry = self.local.read(order_id)
            if entry is not None:
                self.is_current(entry)
                self.is_no_step_back(entry)

    def is_current(self, entry: CachedOrder) -> None:
        outdated_at = self.written_at.get((entry.id, entry.version + 1))
        assert outdated_at is None or self.clock() - outdated_at < 1
        assert entry.version >= self.heard[entry.id]

    def is_no_step_back(self, entry: CachedOrder) -> None:
        assert entry.version >= self.last_read[entry.id]
        self.last_read[entry.id] = entry.version

    @rule(order_id=ids)
    def write(self, order_id: int) -> None:
        self.truth[order_id] += 1
        self.written_at[order_id, self.truth[order_id]] = self.clock()
        if self.connected:
            self.unheard.append(order_id)

    @rule(order_id=ids)
    def fill(self, order_id: int) -> None:
        lease = self.local.lease(order_id)
        self.local.fill(order(self.truth[order_id], order_id), lease, ttl_s=1000)

    @rule(order_id=ids)
    def begin_to_fill(self, order_id: int) -> None:
        lease = self.local.lease(order_id)
        self.fills.append((order(self.truth[order_id], order_id), lease))

    @precondition(lambda self: self.fills)
    @rule()
    def end_the_fills(self) -> None:
        for snapshot, lease in self.fills:
            self.local.fill(snapshot, lease, ttl_s=1000)
        self.fills.clear()

    @rule(order_id=ids, behind=st.integers(0, 3))
    def read_a_lagging_source(self, order_id: int, behind: int) -> None:
        newest = self.local.newest(order(max(1, self.truth[order_id] - behind), order_id))
        self.is_no_step_back(newest)

    @precondition(lambda self: self.connected)
    @rule()
    def hear_everything_and_prove(self) -> None:
        for order_id in self.unheard:
            self.local.invalidate(order_id)
        self.unheard.clear()
        self.heard = dict(self.truth)
        self.local.prove(self.clock())

    @precondition(lambda self: self.unheard)
    @rule()
    def hear_one(self) -> None:
        self.local.invalidate(self.unheard.pop(0))

    @rule()
    def reconnect(self) -> None:
        self.local.invalidate_all()
        self.unheard.clear()
        self.connected = True

    @rule(noticed=st.booleans())
    def lose_the_connection(self, noticed: bool) -> None:  # noqa: FBT001
        self.unheard.clear()  # on their way, and lost
        self.connected = False
        if noticed:
            self.local.invalidate_all()

    @rule(seconds=st.sampled_from([0.1, 0.4, 0.9]))
    def wait(self, seconds: float) -> None:
        self.clock.now_s += seconds


Coherence.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestCoherence = Coherence.TestCase
