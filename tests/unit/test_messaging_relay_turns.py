"""The order in which orders are published while one customer has many."""

import itertools
import statistics
from collections.abc import Callable

import msgspec

from orders.domain import events
from orders.relay.outbox import OutboxRow
from orders.relay.turns import Turns

HOT, OTHER = 1, 2
_later = itertools.count(100_000)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def row(
    seq: int, customer: int | None = HOT, kind: str = events.CREATED, at_s: float = 0.0
) -> OutboxRow:
    """Return a row of the order that has the same number."""
    body = {"orderId": seq, "version": 1, "status": "Pending"}
    named = body if customer is None else body | {"userId": customer}
    return OutboxRow(
        seq, f"id-{seq}", str(seq), kind, msgspec.json.encode(named).decode(), None, None, at_s
    )


def ended(order: int, kind: str = events.COMPLETED, at_s: float = 0.0) -> OutboxRow:
    body = msgspec.json.encode({"orderId": order, "version": 4, "status": "Completed"}).decode()
    seq = next(_later)
    return OutboxRow(seq, f"end-{seq}", str(order), kind, body, None, None, at_s)


def shared(limit: int, workers: Callable[[], int] = lambda: 1, clock: Clock | None = None) -> Turns:
    """Return turns between customers, just after an order of one."""
    turns = Turns(limit, workers, clock or Clock())
    turns.take([row(9_000, 9_000), ended(9_000)])
    return turns


def numbers(rows: list[OutboxRow]) -> list[int]:
    return [row.seq for row in rows]


def test_ten_orders_of_a_customer_never_wait() -> None:
    turns = shared(10)
    first = [row(seq) for seq in range(10)]
    assert turns.take(first) == first
    assert turns.parked == 0


def test_what_a_customer_has_beyond_them_waits_until_some_have_ended() -> None:
    turns = shared(15)
    assert numbers(turns.take([row(seq) for seq in range(30)])) == list(range(10))
    assert numbers(turns.due(100)) == [10, 11, 12, 13, 14]
    assert (turns.due(100), turns.parked) == ([], 15)
    assert turns.take([ended(3), ended(4, events.FAILED), ended(5, events.CANCELLED)])
    assert numbers(turns.due(100)) == [15, 16, 17]


def test_others_do_not_wait_behind_them() -> None:
    turns = shared(15)
    turns.take([row(seq) for seq in range(1000)])
    turns.due(100)
    assert numbers(turns.take([row(seq, OTHER) for seq in range(1000, 1012)])) == list(
        range(1000, 1010)
    )


def test_customers_who_wait_take_turns() -> None:
    turns = shared(30)
    turns.take([row(seq, HOT) for seq in range(100)])
    turns.take([row(seq, OTHER) for seq in range(100, 200)])
    assert numbers(turns.due(100)) == [10, 110, 11, 111, 12, 112, 13, 113, 14, 114]


def test_a_customer_keeps_ten_however_many_others_have() -> None:
    turns = shared(5)
    turns.take([row(seq) for seq in range(20)])
    turns.take([row(seq, seq) for seq in range(100, 150)])
    assert turns.due(100) == []
    turns.take([ended(0)])
    assert numbers(turns.due(100)) == [10]


def test_an_order_that_was_not_taken_is_published_again() -> None:
    """Its queue refused it; it is read again and counts once."""
    turns = shared(10)
    turns.take([row(seq) for seq in range(10)])
    assert numbers(turns.take([row(3), row(10)])) == [3]


def test_a_customer_who_is_alone_has_twice_as_many() -> None:
    clock = Clock()
    turns = Turns(20, lambda: 1, clock)
    turns.take([row(seq) for seq in range(100)])
    assert len(turns.due(100)) == 30
    assert turns.take([row(200, OTHER)])
    turns.take([ended(seq) for seq in range(21)])
    assert turns.due(100) == []
    turns.take([ended(21)])
    assert numbers(turns.due(100)) == [40]


def test_more_workers_have_more_orders() -> None:
    workers = 1
    turns = shared(12, lambda: workers)
    turns.take([row(seq) for seq in range(100)])
    assert len(turns.due(100)) == 2
    workers = 3
    assert len(turns.due(100)) == 24


def test_without_a_worker_nobody_waits() -> None:
    workers = 1
    turns = shared(10, lambda: workers)
    turns.take([row(seq) for seq in range(30)])
    workers = 0
    assert len(turns.due(15)) == 15
    assert len(turns.due(15)) == 5
    assert len(turns.take([row(seq) for seq in range(100, 200)])) == 100


def test_with_a_setting_of_0_nobody_waits() -> None:
    turns = shared(0)
    assert len(turns.take([row(seq) for seq in range(1000)])) == 1000


def test_where_nothing_ends_all_are_published() -> None:
    clock = Clock()
    turns = shared(10, clock=clock)
    turns.take([row(seq) for seq in range(30)])
    clock.now_s += 4
    turns.take([row(500, OTHER), ended(500)])
    clock.now_s += 4
    assert turns.due(100) == []
    clock.now_s += 2
    assert len(turns.due(100)) == 20


def test_nobody_waits_for_longer_than_a_minute() -> None:
    clock = Clock()
    turns = shared(10, clock=clock)
    turns.take([row(seq) for seq in range(1000)])
    for _ in range(14):
        clock.now_s += 4
        turns.take([row(9_000, 9_000), ended(9_000)])  # the worker does not stand still
        turns.due(1000)
    assert turns.parked > 500
    clock.now_s += 8
    turns.take([ended(9_000)])
    turns.due(1000)
    assert turns.parked == 0


def test_those_who_waited_long_enough_have_turns_too() -> None:
    """So that the few orders of one are not published after the thousands of another."""
    clock = Clock()
    workers = 1
    turns = shared(10, lambda: workers, clock)
    turns.take([row(seq, HOT) for seq in range(1000)])
    turns.take([row(seq, OTHER) for seq in range(1000, 1012)])
    workers = 0
    assert numbers(turns.due(5)) == [10, 1010, 11, 1011, 12]
    workers = 1
    clock.now_s += 61
    turns.take([ended(9_000)])
    turns.take([row(seq, OTHER) for seq in range(1012, 1032)])
    clock.now_s += 61
    turns.take([ended(9_000)])
    assert numbers(turns.due(4)) == [13, 1022, 14, 1023]


def test_an_end_that_is_read_again_is_no_order_that_ended() -> None:
    """Its queue refuses it: then the relay does not see which orders end."""
    clock = Clock()
    turns = shared(10, clock=clock)
    turns.take([row(seq) for seq in range(30)])
    refusal = ended(0)
    for _ in range(3):
        turns.take([refusal])
        clock.now_s += 2
    assert len(turns.due(100)) == 20


def test_orders_that_try_a_queue_are_not_parked() -> None:
    turns = shared(10)
    turns.take([row(seq) for seq in range(30)])
    tried = [row(30)]
    assert turns.take(tried, park=False) == tried
    assert turns.parked == 20


def test_an_order_that_does_not_end_makes_room_after_a_while() -> None:
    clock = Clock()
    turns = shared(10, clock=clock)
    turns.take([row(seq) for seq in range(12)])
    for _ in range(3):
        clock.now_s += 4
        turns.take([ended(9_000)])
    assert numbers(turns.due(100)) == [10, 11]


def test_parked_rows_are_not_read_again_until_they_are_forgotten() -> None:
    turns = shared(10)
    turns.take([row(seq) for seq in [*range(10), 15, 13, 14]])
    assert turns.seqs(0) == [13, 14, 15]
    assert turns.seqs(13) == [14, 15]
    turns.take([ended(0)])
    assert numbers(turns.due(100)) == [15]
    assert turns.seqs(0) == [13, 14]
    turns.forget()
    assert (turns.seqs(0), turns.parked) == ([], 0)


def test_rows_that_name_no_customer_never_wait() -> None:
    """Rows of the previous release, rows of other types, and unreadable rows."""
    turns = shared(10)
    turns.take([row(seq) for seq in range(11)])
    unreadable = OutboxRow(900, "id-900", "900", events.CREATED, "[]", None, None, 0)
    others = [row(seq, None) for seq in range(100, 120)]
    deep = '{"x":' + "[" * 5_000 + "]" * 5_000 + ',"userId":1}'
    nested = OutboxRow(901, "id-901", "901", events.CREATED, deep, None, None, 0)
    others += [row(200, HOT, events.STALLED), row(201, HOT, events.REFUND_DUE), unreadable, nested]
    assert turns.take(others) == others


def test_beyond_what_memory_is_meant_for_rows_are_published() -> None:
    turns = shared(10)
    maximum = 20_000
    turns.take([row(seq) for seq in range(10 + maximum)])
    assert turns.parked == maximum
    assert numbers(turns.take([row(50_000)])) == [50_000]


class Shop:
    """Twenty customers with an order a second each, and one with more than can be worked off.

    An order takes 100 ms, and a part of that more for each order under way.
    """

    def __init__(self, workers: int = 1) -> None:
        self.clock = Clock()
        self.turns = Turns(80, lambda: workers, self.clock)
        self._numbers = itertools.count(10_000)
        self._tick = 0
        # When an order will end, its number, and whether it is one of the twenty's.
        self.under_way: list[tuple[float, int, bool]] = []
        self.alone_s = 0.1
        self.slower = 0.0  # by what part of that for each order under way
        self.took_s: list[float] = []  # orders of the twenty
        self.crowd = 0  # orders of the one that ended

    def run(self, seconds: int, *, crowd: bool) -> None:
        """Go on in steps of 10 ms."""
        self.took_s.clear()
        self.crowd = 0
        for _ in range(seconds * 100):
            self.clock.now_s += 0.01
            self._tick += 1
            past_ends = [end for end in self.under_way if end[0] <= self.clock.now_s]
            self.under_way = [end for end in self.under_way if end[0] > self.clock.now_s]
            self.turns.take([ended(number, at_s=end_s) for end_s, number, _ in past_ends])
            self.crowd += sum(not few for _, _, few in past_ends)
            if self._tick % 5 == 0:
                customer = 100 + self._tick // 5 % 20
                placed = row(next(self._numbers), customer, at_s=self.clock.now_s)
                self._begin(self.turns.take([placed]), few=True)
            if crowd and self.turns.parked < 40:
                rows = [row(next(self._numbers), HOT) for _ in range(40)]
                self._begin(self.turns.take(rows), few=False)
            self._begin(self.turns.due(100), few=False)

    def _begin(self, rows: list[OutboxRow], *, few: bool) -> None:
        for each in rows:
            took_s = self.alone_s * (1 + self.slower * len(self.under_way))
            self.under_way.append((self.clock.now_s + took_s, each.seq, few))
            if few:
                self.took_s.append(took_s)


def test_the_many_leave_room_for_the_orders_of_others() -> None:
    shop = Shop()
    shop.slower = 0.005  # 40 % with 80 under way
    shop.run(10, crowd=False)
    usual_s = statistics.median(shop.took_s)
    shop.run(10, crowd=True)
    shop.run(10, crowd=True)
    assert statistics.median(shop.took_s) <= 1.2 * usual_s
    assert shop.crowd > 10 * 200  # more than half of what 80 under way would give


def test_the_many_have_all_again_when_others_do_not_suffer() -> None:
    shop = Shop()
    shop.run(10, crowd=False)
    shop.slower = 0.02
    shop.run(10, crowd=True)
    squeezed = shop.crowd
    shop.slower = 0.0
    shop.run(15, crowd=True)
    shop.run(5, crowd=True)
    assert squeezed < 10 * 300
    assert shop.crowd > 5 * 700


def test_the_many_keep_twenty_for_each_worker_however_slow_the_others_are() -> None:
    shop = Shop(workers=3)
    shop.run(10, crowd=False)
    shop.slower = 0.05
    shop.run(10, crowd=True)
    assert shop.turns.parked > 0
    assert 60 <= len(shop.under_way) <= 65


def test_a_few_milliseconds_more_are_no_reason_to_make_the_many_wait() -> None:
    shop = Shop()
    shop.alone_s = 0.01
    shop.run(10, crowd=False)
    shop.slower = 0.01  # 8 ms with 80 under way
    shop.run(10, crowd=True)
    assert shop.turns.share == 1


def test_after_half_a_minute_the_many_use_all() -> None:
    shop = Shop()
    shop.run(10, crowd=False)
    shop.slower = 0.1
    shop.run(10, crowd=True)
    shop.turns.take([row(seq) for seq in range(1000)])
    assert shop.turns.due(100) == []
    for customer in range(9_000, 9_009):
        shop.clock.now_s += 4
        shop.turns.take([row(customer, customer), ended(customer)])
    assert len(shop.turns.due(100)) == 80
