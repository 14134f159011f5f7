"""The checker passes a clean run, and each of its checks sees the violation it is there for."""

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from failover import page
from failover.checker import CHECKS, Record, check
from failover.evidence import Capture, Evidence, Held
from failover.history import Entry, Fault, History, around, load
from failover.sample import (
    ALICE,
    BOB,
    DONE,
    HISTORY,
    IDS,
    A,
    B,
    body_of,
    but,
    entry,
    listed,
    row,
    was_read,
)  # fmt: skip


def broken(history: Sequence[Entry], evidence: Evidence, faults: Sequence[Fault] = ()) -> set[str]:
    return {
        verdict.name for verdict in check(Record(history, evidence, faults)) if not verdict.holds
    }


def test_a_clean_run_breaks_no_promise_and_every_check_has_looked_at_something() -> None:
    verdicts = check(Record(HISTORY, DONE))
    assert all(verdict.holds and verdict.looked_at for verdict in verdicts)


ANOTHER_LOOK = was_read(A, 103, number=3, version=2)
VIOLATIONS: dict[str, tuple[list[Entry], Evidence]] = {
    "lost": (HISTORY, but(orders=[row(A)])),
    "ids": (
        [*HISTORY, entry(BOB, 3, "place", 104, status=202, mark=A, order_id=IDS[B])], DONE,
    ),
    "twice": (HISTORY, but(orders=[*DONE.orders, row(A, id=99)])),
    "contents": (HISTORY, but(orders=[row(A, user_id=BOB), row(B)])),
    "charges": (HISTORY, but(captures=[*DONE.captures, Capture("c", IDS[A], A)])),
    "stock": (HISTORY, but(stock=[*DONE.stock, Held(99, A, 1, "reserved")])),
    "foreign": ([*HISTORY, msgspec.structs.replace(ANOTHER_LOOK, body=body_of(B))], DONE),
    "own-writes": ([*HISTORY, listed(A, 103)], DONE),
    "visible": ([*HISTORY, ANOTHER_LOOK], DONE),
    "ended": (HISTORY, but(orders=[row(A, status="Charging"), row(B)])),
    "told": (HISTORY, but(notified=DONE.notified[:1])),
    "left-over": (HISTORY, but(dead={"order-processing.dead": 1})),
}  # fmt: skip


def test_every_check_has_a_violation_here() -> None:
    assert VIOLATIONS.keys() == CHECKS.keys()


@pytest.mark.parametrize("name", VIOLATIONS)
def test_the_violation_is_seen_by_the_check(name: str) -> None:
    assert name in broken(*VIOLATIONS[name])


@pytest.mark.parametrize(
    "evidence",
    [
        but(captures=[]),
        but(orders=[row(A, status="Failed"), row(B)]),
        but(orders=[row(B)]),
    ],
    ids=["completed but not charged", "charged but failed", "charged but lost"],
)
def test_a_charge_that_does_not_fit_the_order_is_seen(evidence: Evidence) -> None:
    assert "charges" in broken(HISTORY, evidence)


def test_a_keyless_client_that_was_led_to_order_twice_is_seen() -> None:
    refusal = entry(ALICE, 3, "place", 104, status=503, mark=A, retry_after="1")
    assert "twice" in broken([*HISTORY, refusal], but(orders=[*DONE.orders, row(A, id=99)]))


def test_a_404_of_an_own_order_breaks_read_your_writes() -> None:
    not_found = entry(ALICE, 3, "read", 104, status=404, mark=A, order_id=IDS[A])
    assert "own-writes" in broken([*HISTORY, not_found], DONE)


def test_an_old_version_is_excused_within_a_second_and_while_redis_is_out() -> None:
    soon = msgspec.structs.replace(ANOTHER_LOOK, sent_s=101.5)
    assert broken([*HISTORY, soon], DONE) == set()
    outage = Fault(kind="outage", subject="valkey", began_s=100, ended_s=104)
    assert broken([*HISTORY, ANOTHER_LOOK], DONE, [outage]) == set()


def test_the_page_shows_the_violation_with_its_requests_and_the_command() -> None:
    record = Record(HISTORY, but(orders=[row(A)]))
    text = page.render("a run", record, check(record), "make failover")
    assert "DOES NOT HOLD" in text
    assert f"202 for order {IDS[B]} (m{B}), and it is gone" in text
    assert f"-> 00:01:40.500 client {BOB} place  202" in text
    assert "again: make failover" in text


def test_the_gap_in_writes_is_measured_from_the_promotion() -> None:
    fault = Fault(kind="cut", subject="postgres", began_s=98, promoted_s=99, moved_s=99)
    record = Record(HISTORY, DONE, [fault])
    [(_, from_fault, first, everybody)] = page.gaps(record)
    assert (from_fault, first, everybody) == pytest.approx((2.01, 1.01, 1.51))


def test_a_promotion_after_which_nobody_wrote_is_a_gap_without_an_end() -> None:
    fault = Fault(kind="cut", subject="postgres", began_s=98, promoted_s=99, moved_s=99)
    [(_, *gap)] = page.gaps(Record([], DONE, [fault]))
    assert gap == [math.inf] * 3


def test_a_kept_history_is_read_back(tmp_path: Path) -> None:
    history = History(tmp_path)
    for request in HISTORY:
        history.add(request)
    history.fault("kill -9", "postgres")
    history.save_journal()
    copy = load(history.folder)
    assert copy.entries == sorted(HISTORY, key=lambda request: request.sent_s)
    assert [fault.kind for fault in copy.faults] == ["kill -9"]
    assert [request.number for request in around(copy.entries, ALICE, 1)] == [0, 1, 2]
