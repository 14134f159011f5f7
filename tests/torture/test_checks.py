"""Each check of a torture run sees the violation it is there for, on histories that are made up."""

from collections.abc import Sequence

import msgspec
import pytest

from failover import page
from failover.checker import check
from failover.evidence import Capture, Evidence, Moved, Notified, PaidBack
from failover.history import Entry, Fault
from failover.sample import ALICE, BOB, DONE, HISTORY, IDS, A, B, body_of, but, entry, row, was_read
from torture.checks import CHECKS
from torture.record import Stall, TortureRecord

STEPS = ("Pending", "Reserved", "Charging", "Completed")


def moved(mark: int, *ends: str, at_s: float = 100.0) -> list[Moved]:
    steps = [*STEPS, *ends]
    return [
        Moved(IDS[mark], number + 1, (None, *steps)[number], status_after, at_s)
        for number, status_after in enumerate(steps)
    ]


def item(order_id: int, second: int) -> dict[str, object]:
    return body_of(A, id=order_id, createdAt=f"2026-11-29T15:00:{second:02}Z")


def walked(number: int, *ids: int, link: str | None = None, walk: int = 0) -> Entry:
    body = [item(order_id, order_id) for order_id in ids]
    return entry(ALICE, number, "walk", 110 + number, status=200, walk=walk, body=body, link=link)


def cancelled(status: int, answered: str | None = None, **fields: object) -> Entry:
    body = {"status": answered} | fields
    return entry(ALICE, 8, "cancel", 108, status=status, order_id=IDS[A], mark=A, body=body)


def refunded(number: int, cents: int, status: int = 202, key: str | None = "r") -> Entry:
    return entry(
        ALICE, number, "refund", 108, status=status, order_id=IDS[A], mark=A, amount=cents, key=key
    )


def finally_read(version: int = 4, status: str = "Completed") -> Entry:
    body = body_of(A, status=status)
    return entry(
        ALICE, 50, "final", 150, status=200, order_id=IDS[A], mark=A, version=version, body=body
    )


SEEN_HISTORY = entry(
    ALICE, 9, "history", 109, status=200, order_id=IDS[A],
    body=[{"from": None, "to": "Pending"}, {"from": "Pending", "to": "Reserved"}],
)  # fmt: skip
REUSED = entry(ALICE, 10, "reuse", 109.5, status=422, mark=A, key=f"k{A}")
WALK = [walked(11, 18, 17, 16, 15, 14, 13, 12, link="/next"), walked(12, IDS[A])]
FULL = Fault(kind="fill", subject="order-notifications", began_s=97, ended_s=115)
SOUND = but(moved=[*moved(A, at_s=101), *moved(B, at_s=101)], processed=2)
CALM = [*HISTORY, SEEN_HISTORY, REUSED, *WALK, finally_read(), refunded(13, 5, 409, None),
        cancelled(409, reason="Failed")]  # fmt: skip


def sound(**changes: object) -> Evidence:
    return msgspec.structs.replace(SOUND, **changes)


def broken(
    history: Sequence[Entry],
    evidence: Evidence,
    faults: Sequence[Fault] = (),
    stalls: Sequence[Stall] = (),
) -> set[str]:
    record = TortureRecord(history, evidence, faults, stalls)
    return {verdict.name for verdict in check(record, CHECKS) if not verdict.holds}


def test_a_clean_run_breaks_nothing_and_every_check_has_looked_at_something() -> None:
    history = [entry for entry in CALM if entry.action != "cancel"]
    fine = cancelled(202, "Refunding")
    paid_back = moved(A, "Refunding", "Refunded", at_s=101)
    evidence = sound(
        orders=[row(A, status="Refunded", version=6, refunded=A), row(B)],
        refunds=[PaidBack("r", IDS[A], A)],
        moved=[*paid_back, *moved(B, at_s=101)],
        stock=DONE.stock[1:],
        notified=[*DONE.notified, Notified("w3", "order.refunded", IDS[A], 6, 110)],
    )
    body = body_of(A, status="Refunded", refunded=A / 100)
    end = msgspec.structs.replace(finally_read(version=6), body=body)
    look = [entry for entry in history if entry.action not in ("final", "read")]
    record = TortureRecord([*look, was_read(B, 103), end, fine], evidence, [FULL])
    verdicts = check(record, CHECKS)
    assert {verdict.name: verdict.violations for verdict in verdicts if not verdict.holds} == {}
    assert [verdict.name for verdict in verdicts if not verdict.looked_at] == []


TOO_EARLY = Notified("w", "order.refunded", IDS[A], 6, 90)
GAP = [moved(A)[0], moved(A)[2], moved(A)[3], *moved(B)]
VIOLATIONS: dict[str, tuple[list[Entry], Evidence, list[Fault]]] = {
    "visible": ([*HISTORY, was_read(A, 103, 3, version=3)], SOUND, []),
    "forward": ([*HISTORY, was_read(A, 103, 3, version=3)], DONE, []),
    "cancels": ([*HISTORY, cancelled(202, "Cancelled")], SOUND, []),
    "refunds": ([*HISTORY, refunded(9, 500)], SOUND, []),
    "pages": ([*HISTORY, walked(11, 18, 17, 16, 15, 14, 13, 12)], SOUND, []),
    "keys": ([*HISTORY, msgspec.structs.replace(REUSED, status=202)], SOUND, []),
    "answers": ([*HISTORY, entry(ALICE, 9, "read", 109, status=500)], SOUND, []),
    "notices": (
        HISTORY, sound(notified=[TOO_EARLY, *DONE.notified]), [],
    ),
    "histories": (HISTORY, sound(moved=GAP), []),
    "books": (HISTORY, sound(captures=[*DONE.captures, Capture("c", IDS[A], A)]), []),
    "noted": (HISTORY, sound(processed=1), []),
    "final": ([*HISTORY, finally_read(status="Charging")], SOUND, []),
    "served": ([*HISTORY, entry(ALICE, 9, "place", 120, mark=9, status=503)], SOUND, []),
    "apart": (HISTORY, sound(moved=[moved(A)[0], moved(B)[0]]), [FULL]),
}  # fmt: skip
SHARED = {"lost", "ids", "twice", "contents", "charges", "stock", "foreign", "own-writes", "ended"}


def test_every_check_has_a_violation_here_or_in_the_failover_tests() -> None:
    assert VIOLATIONS.keys() | SHARED | {"told", "left-over"} == CHECKS.keys()


@pytest.mark.parametrize("name", VIOLATIONS)
def test_the_violation_is_seen_by_the_check(name: str) -> None:
    assert name in broken(*VIOLATIONS[name])


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        (cancelled(202, "Charging"), "Completed"),
        (cancelled(202, "Charging"), "Failed"),
        (cancelled(202, "Refunding"), "Completed"),
        (cancelled(200, "Refunded"), "Cancelled"),
        (cancelled(409, reason="Failed"), "Completed"),
        (cancelled(409, reason="WindowClosed"), "Completed"),
    ],
)
def test_an_order_that_does_not_end_as_its_cancellation_said_is_seen(
    answer: Entry, end: str
) -> None:
    evidence = sound(orders=[row(A, status=end), row(B)])
    assert "cancels" in broken([*HISTORY, answer], evidence)


@pytest.mark.parametrize(
    ("refunds", "evidence"),
    [
        ([], sound(refunds=[PaidBack("a", IDS[A], 500)])),
        (
            [refunded(9, 500)],
            sound(
                orders=[row(A, refunded=500), row(B)],
                refunds=[PaidBack("a", IDS[A], 500), PaidBack("b", IDS[A], 500)],
            ),
        ),
        (
            [refunded(9, 500), refunded(10, 500)],
            sound(
                orders=[row(A, refunded=1000), row(B)],
                refunds=[PaidBack("a", IDS[A], 500), PaidBack("b", IDS[A], 500)],
            ),
        ),
        ([], sound(orders=[row(A, status="Refunded"), row(B)])),
    ],
    ids=["not noted", "paid back twice", "one request, two refunds", "nothing came back"],
)
def test_a_refund_that_was_not_asked_for_so_is_seen(
    refunds: list[Entry], evidence: Evidence
) -> None:
    assert "refunds" in broken([*HISTORY, *refunds], evidence)


def test_a_refund_whose_answer_was_lost_may_have_been_made_or_not() -> None:
    refunds = [refunded(9, 500, status=0, key=None)]
    evidence = sound(orders=[row(A, refunded=500), row(B)], refunds=[PaidBack("a", IDS[A], 500)])
    assert "refunds" not in broken([*HISTORY, *refunds], evidence)
    assert "refunds" not in broken([*HISTORY, *refunds], SOUND)


@pytest.mark.parametrize(
    "pages",
    [
        [walked(11, 18, 17, 17, 16, 15, 14, 13, link="/n"), walked(12, IDS[A])],
        [walked(11, 13, 12, link="/n"), walked(12, IDS[A])],
        [walked(11, 13, 14, IDS[A])],
    ],
    ids=["double", "short page", "out of turn"],
)
def test_a_list_that_is_not_whole_is_seen(pages: list[Entry]) -> None:
    assert "pages" in broken([*HISTORY, *pages], SOUND)


def test_a_walk_that_was_cut_off_proves_no_gap() -> None:
    pages = [walked(11, 18, 17, 16, 15, 14, 13, 12, link="/n")]
    failed = entry(ALICE, 12, "walk", 122, status=502, walk=0)
    assert "pages" not in broken([*HISTORY, *pages, failed], SOUND)


BY_WORKER = sound(moved=[msgspec.structs.replace(step, actor="worker") for step in SOUND.moved])
LATE = [*HISTORY, was_read(A, 103, 3, version=3)]


def test_what_depends_on_time_is_judged_by_how_slow_the_machine_was() -> None:
    assert broken(LATE, SOUND, stalls=[Stall(101.5, 0.4)]) == set()
    slow = msgspec.structs.replace(was_read(B, 101.2, 4), answered_s=102.0)
    assert broken([*LATE, slow], SOUND) == set()
    assert "visible" in broken(LATE, SOUND, stalls=[Stall(120, 0.4)])


def test_a_dead_redis_or_writer_excuses_an_old_version_and_a_dead_relay_does_not() -> None:
    outage = Fault(kind="cut", subject="valkey", began_s=102, ended_s=102.5)
    assert broken(LATE, SOUND, [outage]) == set()
    killed = Fault(kind="kill", subject="worker-1", began_s=101, ended_s=101)
    assert "visible" not in broken(LATE, SOUND, [killed])
    assert "visible" in broken(LATE, SOUND, [msgspec.structs.replace(killed, subject="relay-1")])


def test_a_fault_excuses_only_what_the_processes_that_it_hit_were_to_tell() -> None:
    killed = Fault(kind="kill", subject="worker-1", began_s=101, ended_s=101)
    assert "visible" not in broken(LATE, BY_WORKER, [killed])
    other = msgspec.structs.replace(killed, subject="api-1")
    assert "visible" in broken(LATE, BY_WORKER, [other])


def test_a_failpoint_at_which_no_process_ended_excuses_nothing() -> None:
    armed = Fault(kind="failpoint", subject="worker-1", began_s=99, ended_s=107, note="sent:exit")
    assert "visible" in broken(LATE, SOUND, [armed])
    assert "visible" not in broken(LATE, SOUND, [msgspec.structs.replace(armed, acted_s=101)])
    later_fault = msgspec.structs.replace(armed, began_s=104, ended_s=112, acted_s=111)
    assert "visible" in broken(LATE, SOUND, [later_fault])


def test_what_a_process_waits_at_failpoints_excuses_as_much_and_no_more() -> None:
    waits = Fault(
        kind="failpoint", subject="worker-1", began_s=99, ended_s=104, note="advanced:sleep"
    )
    assert "visible" in broken(LATE, SOUND, [waits])
    dawdles = Fault(kind="dawdle", subject="worker", began_s=99, ended_s=104)
    assert "visible" not in broken(LATE, SOUND, [dawdles])
    slow = msgspec.structs.replace(was_read(B, 101.2, 4), answered_s=101.7)
    assert broken([*LATE, slow], SOUND) == set()
    reader = Fault(kind="dawdle", subject="api", began_s=99, ended_s=104)
    assert "forward" in broken([*LATE, slow], BY_WORKER, [reader])


def test_a_full_queue_shows_nothing_while_another_fault_takes_too_long() -> None:
    history, evidence, faults = VIOLATIONS["apart"]
    late_fault = Fault(kind="promote", subject="postgres", began_s=80, ended_s=99)
    assert "apart" not in broken(history, evidence, [*faults, late_fault])


def test_an_ended_order_is_shown_old_only_where_the_writer_died() -> None:
    paid_back = sound(
        orders=[row(A, status="Refunded", version=6, refunded=A), row(B)],
        refunds=[PaidBack("r", IDS[A], A)],
        moved=[*moved(A, "Refunding", "Refunded", at_s=102), *moved(B)],
    )
    history = [*HISTORY, finally_read()]
    assert {"final", "visible"} <= broken(history, paid_back)
    killed = Fault(kind="kill", subject="worker-1", began_s=103, ended_s=103)
    assert not {"final", "visible"} & broken(history, paid_back, [killed])
    frozen = msgspec.structs.replace(killed, kind="freeze")
    assert "final" in broken(history, paid_back, [frozen])


def test_wrongly_signed_webhooks_are_seen() -> None:
    assert "notices" in broken(HISTORY, sound(refused={"bad_signature": 1}))
    assert "notices" not in broken(HISTORY, sound(refused={"stale_timestamp": 1}))


def test_a_step_that_no_order_may_take_and_a_false_view_are_seen() -> None:
    back = [*moved(A)[:3], Moved(IDS[A], 4, "Completed", "Charging", 100), *moved(B)]
    assert "histories" in broken(HISTORY, sound(moved=back))
    false = msgspec.structs.replace(SEEN_HISTORY, body=[{"from": None, "to": "Reserved"}])
    assert "histories" in broken([*HISTORY, false], SOUND)


def test_the_page_names_the_violation_and_how_to_repeat_it() -> None:
    record = TortureRecord([*HISTORY, refunded(9, 500)], SOUND)
    text = page.render("a run", record, check(record, CHECKS), "make torture SEED=7")
    assert "first of refunds: order 11" in text
    assert f"client {ALICE} refund 202" in text
    assert "again: make torture SEED=7" in text
    assert BOB != ALICE
