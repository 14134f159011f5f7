"""Faults come at their times, and what was begun is brought to its end."""

import threading
import time

from loadtest.faults import Timetable, describe
from loadtest.scenario import Component, Moment, Poison, Upstream
from loadtest.target.local_stack import StackFailed

STOP, START = Component("stop", "valkey"), Component("start", "valkey")


def test_what_is_late_because_something_took_long_is_still_done_before_the_end() -> None:
    acts: list[object] = []

    def do(act: object) -> None:
        time.sleep(0.3)
        acts.append(act)

    timetable = Timetable((Moment(0.05, START), Moment(0.0, STOP)), do, lambda _: None)
    timetable.start()
    timetable.finish()
    assert acts == [STOP, START]
    assert [event.text for event in timetable.events] == ["stop valkey", "start valkey"]


def test_a_run_that_is_broken_off_causes_no_further_fault() -> None:
    acts: list[object] = []
    timetable = Timetable((Moment(60, STOP),), acts.append, lambda _: None)
    timetable.start()
    timetable.abandon()
    timetable.finish()
    assert acts == []


def test_a_fault_that_cannot_be_caused_is_kept_for_the_verdict() -> None:
    reported = threading.Event()

    def do(_: object) -> None:
        raise StackFailed("valkey will not stop")

    timetable = Timetable((Moment(0, STOP), Moment(0, START)), do, lambda _: reported.set())
    timetable.start()
    timetable.finish()
    assert isinstance(timetable.failure, StackFailed)
    assert len(timetable.events) == 1, "nothing is built on a fault that did not happen"


def test_every_act_is_described_for_people() -> None:
    assert describe(Upstream("payment", {"errorRatio": 0.3})) == "payment: errorRatio 0.3"
    assert describe(Upstream("payment")) == "payment: well again"
    assert describe(Poison(3)) == "3 unreadable messages into order-processing"
