"""The life of an order, as a table and under any sequence of events."""

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from devstack import demo
from loadtest import evidence
from orders import database
from orders.domain.lifecycle import ACTIVE, TERMINAL, Event, Reason, Status, transition

EVENTS = st.lists(st.tuples(st.sampled_from(Event), st.booleans()), max_size=12)

TABLE = {
    (Status.PENDING, Event.STOCK_RESERVED): (Status.RESERVED, None),
    (Status.PENDING, Event.STOCK_REFUSED): (Status.FAILED, Reason.OUT_OF_STOCK),
    (Status.PENDING, Event.STOCK_GONE): (Status.FAILED, Reason.STOCK_RELEASED),
    (Status.PENDING, Event.CANCEL_REQUESTED): (Status.CANCELLED, None),
    (Status.RESERVED, Event.CANCEL_REQUESTED): (Status.CANCELLED, None),
    (Status.RESERVED, Event.CHARGE_STARTED): (Status.CHARGING, None),
    (Status.CHARGING, Event.PAYMENT_CAPTURED): (Status.COMPLETED, None),
    (Status.CHARGING, Event.PAYMENT_DECLINED): (Status.FAILED, Reason.PAYMENT_DECLINED),
    (Status.CHARGING, Event.CANCEL_REQUESTED): (Status.CHARGING, Reason.CANCEL_REQUESTED),
    (Status.CANCELLED, Event.CAPTURE_RECOVERED): (Status.REFUNDING, Reason.CAPTURE_RECOVERED),
    (Status.COMPLETED, Event.CANCEL_REQUESTED): (Status.REFUNDING, None),
    (Status.COMPLETED, Event.REFUND_REQUESTED): (Status.COMPLETED, Reason.REFUND_REQUESTED),
    (Status.COMPLETED, Event.PART_REFUNDED): (Status.COMPLETED, Reason.PART_REFUNDED),
    (Status.COMPLETED, Event.REFUND_CONFIRMED): (Status.REFUNDED, None),
    (Status.COMPLETED, Event.REFUND_DECLINED): (Status.COMPLETED, Reason.REFUND_DECLINED),
    (Status.COMPLETED, Event.REFUND_DROPPED): (Status.COMPLETED, Reason.REFUND_DROPPED),
    (Status.REFUNDING, Event.PART_REFUNDED): (Status.REFUNDING, Reason.PART_REFUNDED),
    (Status.REFUNDING, Event.REFUND_CONFIRMED): (Status.REFUNDED, None),
    (Status.REFUNDING, Event.REFUND_DECLINED): (Status.REFUNDING, Reason.REFUND_DECLINED),
}


def test_every_pair_of_status_and_event_does_what_the_design_says() -> None:
    for status in Status:
        for event in Event:
            change = transition(status, event)
            actual = (change.to, change.reason) if change else None
            assert actual == TABLE.get((status, event)), (status, event)


def test_a_cancel_during_the_charge_decides_what_its_outcome_leads_to() -> None:
    captured = transition(Status.CHARGING, Event.PAYMENT_CAPTURED, cancel_requested=True)
    declined = transition(Status.CHARGING, Event.PAYMENT_DECLINED, cancel_requested=True)
    assert captured is not None
    assert captured.to is Status.REFUNDING
    assert declined is not None
    assert declined.to is Status.CANCELLED


def test_clients_that_cannot_import_the_service_know_the_same_ended_statuses() -> None:
    assert evidence.ENDED == demo.TERMINAL == TERMINAL


def test_every_list_of_ended_or_open_statuses_in_sql_is_complete() -> None:
    count = 0
    for path in sorted((Path(database.__file__).parent / "sql").glob("*.sql")):
        text = path.read_text()
        for match in re.finditer(r"status (?:NOT )?IN \(([^)]*)\)", text):
            listed = set(re.findall(r"'(\w+)'", match[1]))
            if not listed <= set(Status) or len(listed) < 3:
                continue  # of another table, or a choice of single statuses
            if text[: match.start()].splitlines()[-2].strip().startswith("WHEN o.status = 'Comp"):
                listed.add(Status.COMPLETED)  # the arm before this one
            assert listed in (TERMINAL, ACTIVE), (path.name, listed)
            count += listed == TERMINAL
    assert count >= 7, "the lists are written in another way: the search above must find them"


def test_the_database_accepts_every_status_and_no_other() -> None:
    """The newest migration with a CHECK on the status decides."""
    files = sorted((Path(database.__file__).parent / "migrations").glob("*.sql"))
    text = "".join(file.read_text() for file in files if ".rollback" not in file.name)
    checks = re.findall(r"CHECK \(status IN \(([^)]*)\)", text)
    assert set(re.findall(r"'(\w+)'", checks[-1])) == set(Status)


@given(EVENTS)
def test_no_sequence_of_events_charges_twice_or_revives_an_ended_order(
    events: list[tuple[Event, bool]],
) -> None:
    status, charges, statuses = Status.PENDING, 0, [Status.PENDING]
    for event, cancelled in events:
        change = transition(status, event, cancel_requested=cancelled)
        if change is None:
            continue
        if change.to is status:
            continue
        charges += change.to is Status.CHARGING
        assert status not in TERMINAL or (
            status in {Status.COMPLETED, Status.CANCELLED}
            and change.to in {Status.REFUNDING, Status.REFUNDED}
        )
        status = change.to
        statuses.append(status)
    assert charges <= 1
    assert len(statuses) == len(set(statuses)), "a status came back"
    if Status.COMPLETED in statuses or (
        Status.REFUNDING in statuses and Status.CANCELLED not in statuses
    ):
        assert Status.CHARGING in statuses


@given(EVENTS)
def test_every_end_is_announced(events: list[tuple[Event, bool]]) -> None:
    status = Status.PENDING
    for event, cancelled in events:
        change = transition(status, event, cancel_requested=cancelled)
        if change is None:
            continue
        is_end, status = change.to is not status, change.to
        if is_end and status in TERMINAL:
            assert change.announces == f"order.{status.lower()}.v1"
