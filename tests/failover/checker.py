"""Compares what clients saw with what was done. Pure: histories and evidence in, verdicts out.

Each check is a function that yields violations; `CHECKS` is the table. A check says how many things
it looked at, because one that looked at none has shown nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple

import msgspec

from failover.clients import PAGE_SIZE, mark_of_product, mark_of_total
from failover.evidence import Evidence, OrderRow
from failover.history import Entry, Fault
from orders.domain.lifecycle import TERMINAL

VISIBLE_WITHIN_S: Final = 1.0
# Money was taken for an order in one of these, whether or not it went back since.
PAID: Final = frozenset({"Completed", "Refunding", "Refunded"})
_ACCEPTED: Final = 202
_TYPES: Final = {
    "Completed": "order.completed",
    "Failed": "order.failed",
    "Cancelled": "order.cancelled",
    "Refunded": "order.refunded",
}


class Violation(NamedTuple):
    """A violation, and the request that shows it (client 0: no request).

    `mark`: all requests about that order show it.
    """

    text: str
    client: int = 0
    number: int = -1
    mark: int | None = None


class Verdict(msgspec.Struct, frozen=True):
    """The result of one check."""

    name: str
    promise: str
    looked_at: int
    violations: list[Violation]

    @property
    def holds(self) -> bool:
        """Whether the check found no violation."""
        return not self.violations


class Record:
    """A run: what clients saw, what was done, and indexes over both."""

    def __init__(
        self, entries: Sequence[Entry], evidence: Evidence, faults: Sequence[Fault] = ()
    ) -> None:
        self.entries, self.evidence, self.faults = entries, evidence, faults

    @cached_property
    def accepted(self) -> list[Entry]:
        """The requests that were answered 202, repeats included."""
        return [entry for entry in self.entries if entry.status == _ACCEPTED]

    @cached_property
    def client_of(self) -> dict[int, int]:
        """The client of each mark of this run."""
        return {entry.mark: entry.client for entry in self.entries if entry.mark is not None}

    @cached_property
    def rows(self) -> dict[int, list[OrderRow]]:
        """The orders in the database by mark; only those of this run."""
        rows: dict[int, list[OrderRow]] = defaultdict(list)
        for row in self.evidence.orders:
            if row.mark in self.client_of:
                rows[row.mark].append(row)
        return rows

    @cached_property
    def first_accepted(self) -> dict[int, Entry]:
        """The first 202 of each mark."""
        first: dict[int, Entry] = {}
        for entry in self.accepted:
            if entry.mark is not None:
                first.setdefault(entry.mark, entry)
        return first

    def during_fault(self, subject: str, moment_s: float, margin_s: float) -> bool:
        """Return whether a fault of a subject was in force at, or shortly before, a moment."""
        return any(
            fault.began_s - margin_s <= moment_s <= (fault.ended_s or moment_s) + margin_s
            for fault in self.faults
            if fault.subject == subject
        )


Check = Callable[[Record, Counter[str]], Iterator[Violation]]
LOOKED: Final = "looked at"
_GIVEN_BACK: Final = frozenset({"released", "returned"})
_LISTS: Final = frozenset({"list", "walk"})


def no_order_lost(record: Record, counter: Counter[str]) -> Iterator[Violation]:
    """Find orders whose 202 was answered and that are not in the database."""
    for mark, entry in record.first_accepted.items():
        counter[LOOKED] += 1
        if not record.rows.get(mark):
            yield of_entry(entry, f"202 for order {entry.order_id} (m{mark}), and it is gone")


def one_id_per_order(record: Record, counter: Counter[str]) -> Iterator[Violation]:
    """Find ids that were answered for two orders, and orders that were answered two ids."""
    ids: dict[int, set[int]] = defaultdict(set)
    marks: dict[int, set[int]] = defaultdict(set)
    for entry in record.accepted:
        if entry.order_id is None or entry.mark is None:
            continue
        counter[LOOKED] += 1
        ids[entry.mark].add(entry.order_id)
        marks[entry.order_id].add(entry.mark)
        if len(marks[entry.order_id]) > 1:
            yield of_entry(
                entry, f"id {entry.order_id} was issued to {_all(marks[entry.order_id])}"
            )
        if len(ids[entry.mark]) > 1:
            yield of_entry(entry, f"m{entry.mark} was answered the ids {sorted(ids[entry.mark])}")


def nothing_twice(record: Record, counter: Counter[str]) -> Iterator[Violation]:
    """Find orders that a client asked for once, with or without a key, and that are there twice."""
    for mark, rows in record.rows.items():
        counter[LOOKED] += 1
        if len(rows) > 1:
            last = [entry for entry in record.entries if entry.mark == mark][-1]
            yield of_entry(last, f"m{mark} is there as orders {sorted(row.id for row in rows)}")


def contents_intact(record: Record, counter: Counter[str]) -> Iterator[Violation]:
    """Find orders in the database that have another order's contents."""
    for mark, rows in record.rows.items():
        for row in rows:
            counter[LOOKED] += 1
            expected = (mark, mark, record.client_of[mark], 1 + mark % 3)
            if (row.product_mark, row.total_mark, row.user_id, row.quantity) != expected:
                yield Violation(f"order {row.id} (m{mark}) is mixed up in the database: {row}")


def charged_once(record: Record, counter: Counter[str]) -> Iterator[Violation]:
    """Find orders that were charged twice, charged without being paid, or the reverse."""
    captures: Counter[int] = Counter(
        capture.mark for capture in record.evidence.captures if capture.mark in record.client_of
    )
    for mark in record.client_of:
        counter[LOOKED] += 1
        paid = sum(row.status in PAID for row in record.rows.get(mark, ()))
        if captures[mark] > 1:
            yield of_mark(record, mark, f"m{mark} was charged {captures[mark]} times")
        elif captures[mark] != paid:
            status = [row.status for row in record.rows.get(mark, ())] or ["not there"]
            yield of_mark(record, mark, f"m{mark}: {captures[mark]} captures, order {status[0]}")


def stock_taken_once(record: Record, counter: Counter[str]) -> Iterator[Violation]:
    """Find orders with two reservations, or one that does not fit how they ended."""
    reservations: dict[int, list[str]] = defaultdict(list)
    for reservation in record.evidence.stock:
        if reservation.mark in record.client_of and reservation.status not in _GIVEN_BACK:
            reservations[reservation.mark].append(reservation.status)
    for mark in record.client_of:
        counter[LOOKED] += 1
        completed = sum(row.status == "Completed" for row in record.rows.get(mark, ()))
        if reservations[mark] != ["committed"] * completed:
            yield of_mark(
                record, mark, f"m{mark}: {completed} completed, stock is {reservations[mark]}"
            )


def nobody_elses_order(record: Record, counter: Counter[str]) -> Iterator[Violation]:
    """Find answers with an order that is not the client's, or not the one it asked for."""
    for entry in record.entries:
        if entry.status != 200:
            continue
        if entry.action == "read":
            counter[LOOKED] += 1
            if _mark_in(entry.body, entry.client) != entry.mark:
                yield of_entry(entry, f"asked for its m{entry.mark}, got {short(entry.body)}")
        elif entry.action in _LISTS:
            counter[LOOKED] += len(entry.body)
            for item in entry.body:
                mark = _mark_in(item, entry.client)
                if mark is None or record.client_of.get(mark) != entry.client:
                    yield of_entry(entry, f"its list has {short(item)}")


def own_writes_read(record: Record, counter: Counter[str]) -> Iterator[Violation]:
    """Find reads after a 202 that do not know the order."""
    posts_by_client: dict[int, list[Entry]] = defaultdict(list)
    for entry in sorted(record.entries, key=lambda entry: (entry.client, entry.number)):
        own_entries = posts_by_client[entry.client]
        if entry.action == "place" and entry.status == _ACCEPTED:
            own_entries.append(entry)
        elif entry.action == "read" and entry.status in {200, 404}:
            counter[LOOKED] += 1
            if entry.status == 404:
                yield of_entry(entry, f"its order {entry.order_id} (m{entry.mark}) is not known")
        elif entry.action == "list" and entry.status == 200:
            counter[LOOKED] += 1
            yield from _missing(entry, own_entries[-PAGE_SIZE // 2 :])


def _missing(entry: Entry, writes: Sequence[Entry]) -> Iterator[Violation]:
    listed = {_mark_in(item, entry.client) for item in entry.body}
    lacking = [entry for entry in writes if entry.mark not in listed]
    if lacking:
        last = lacking[-1]
        age_s = entry.sent_s - last.answered_s
        yield of_entry(entry, f"its list lacks m{last.mark}, accepted {age_s:.2f} s before")


def visible_soon(record: Record, counter: Counter[str]) -> Iterator[Violation]:
    """Find reads of a version older than one that a client saw more than a second before.

    While Redis is out a process may answer from its own memory for longer.
    """
    first_seen: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for entry in sorted(record.entries, key=lambda entry: entry.answered_s):
        if entry.action != "read" or entry.version is None or entry.mark is None:
            continue
        counter[LOOKED] += 1
        past_s = entry.sent_s - VISIBLE_WITHIN_S
        version = max((v for at_s, v in first_seen[entry.mark] if at_s < past_s), default=0)
        first_seen[entry.mark].append((entry.answered_s, entry.version))
        if entry.version < version and not record.during_fault("valkey", entry.sent_s, 5.0):
            yield of_entry(
                entry, f"m{entry.mark} at version {entry.version}, {version} was seen before"
            )


def every_order_ended(record: Record, counter: Counter[str]) -> Iterator[Violation]:
    """Find orders that are under way still."""
    for mark, rows in record.rows.items():
        for row in rows:
            counter[LOOKED] += 1
            if row.status not in TERMINAL:
                yield of_mark(record, mark, f"order {row.id} (m{mark}) is {row.status} still")


def every_customer_told(record: Record, counter: Counter[str]) -> Iterator[Violation]:
    """Find ended orders without their notification, or with one that tells something else."""
    types: dict[int, set[str]] = defaultdict(set)
    for notice in record.evidence.notified:
        types[notice.order_id].add(notice.type)
    counts_before: dict[int, set[str]] = defaultdict(set)
    for step in record.evidence.moved:
        if step.before != step.after and step.after in _TYPES:
            counts_before[step.order_id].add(_TYPES[step.after])
    for mark, rows in record.rows.items():
        for row in rows:
            if row.status in TERMINAL:
                counter[LOOKED] += 1
                if types[row.id] != counts_before[row.id] | {_TYPES[row.status]}:
                    text = f"order {row.id} (m{mark}) is {row.status}, told was {types[row.id]}"
                    yield of_mark(record, mark, text)


def nothing_left_over(record: Record, counter: Counter[str]) -> Iterator[Violation]:
    """Find dead letters and unpublished rows."""
    for queue, number in record.evidence.dead.items():
        counter[LOOKED] += 1
        if number:
            yield Violation(f"{number} messages in {queue}")
    counter[LOOKED] += 1
    if record.evidence.outbox:
        yield Violation(f"{record.evidence.outbox} rows in the outbox")


CHECKS: Final[dict[str, tuple[str, Check]]] = {
    "lost": ("no 202 lost", no_order_lost),
    "ids": ("one id for an order, one order for an id", one_id_per_order),
    "twice": ("no order placed twice, with or without a key", nothing_twice),
    "contents": ("every order has its own contents", contents_intact),
    "charges": ("charged once, exactly if paid", charged_once),
    "stock": ("stock taken once, exactly if completed", stock_taken_once),
    "foreign": ("nobody reads another's order", nobody_elses_order),
    "own-writes": ("own writes are read, in GET and list", own_writes_read),
    "visible": ("a status is seen by all within 1 s", visible_soon),
    "ended": ("every order ended", every_order_ended),
    "told": ("every ended order was notified", every_customer_told),
    "left-over": ("no dead letters, outbox empty", nothing_left_over),
}


Table = Mapping[str, tuple[str, Callable[[Any, Counter[str]], Iterator[Violation]]]]


def check(record: Record, table: Table = CHECKS) -> list[Verdict]:
    """Run every check of a table."""
    return [_run(name, record, table) for name in table]


def _run(name: str, record: Record, table: Table) -> Verdict:
    promise, function = table[name]
    counter: Counter[str] = Counter()
    violations = list(function(record, counter))
    return Verdict(name, promise, counter[LOOKED], violations)


def of_entry(entry: Entry, text: str) -> Violation:
    """Return a violation that a request shows."""
    return Violation(text, entry.client, entry.number)


def of_mark(record: Record, mark: int, text: str) -> Violation:
    """Return a violation by an order, shown by its first request."""
    entry = next(entry for entry in record.entries if entry.mark == mark)
    return of_entry(entry, text)._replace(mark=mark)


def _mark_in(order: Any, client: int) -> int | None:
    """Return the mark of an order as the API shows it; None if it is not all one client's."""
    try:
        mark = mark_of_total(order["total"])
        contents = (order["userId"], mark_of_product(order["productId"]), order["quantity"])
    except (KeyError, TypeError):
        return None
    return mark if contents == (client, mark, 1 + mark % 3) else None


def short(order: Any) -> str:
    """Return the beginning of an answer."""
    return msgspec.json.encode(order).decode()[:160]


def _all(marks: set[int]) -> str:
    return " and ".join(f"m{mark}" for mark in sorted(marks))
