"""A failing plan is cut down to the faults and clients that it needs."""

import itertools
import time

import pytest

from torture import plan as plans
from torture.plan import Plan
from torture.shrink import OutOfTime, failing, shrink

PLAN = plans.plan(3, 300, 8)


def kinds(plan: Plan) -> set[tuple[str, str, str]]:
    return {(fault.kind, fault.target, fault.detail) for fault in plan.faults}


@pytest.mark.parametrize("places", [(5,), (0, 20), (3, 30, 31)])
def test_only_the_needed_faults_and_clients_are_left(places: tuple[int, ...]) -> None:
    needed_faults = {
        (fault.kind, fault.target, fault.detail)
        for fault in (PLAN.faults[index] for index in places)
    }
    small = shrink(PLAN, lambda plan: needed_faults <= kinds(plan) and plan.customers >= 2)
    assert kinds(small) == needed_faults
    assert small.customers == 2
    assert small.length_s < PLAN.length_s


def test_a_plan_that_fails_without_faults_has_none_left() -> None:
    assert shrink(PLAN, lambda _plan: True).faults == []


def test_the_smallest_plan_so_far_is_taken_when_the_time_is_up() -> None:
    tries = itertools.count()

    def fails(plan: Plan) -> bool:
        if next(tries) == 4:
            raise OutOfTime
        return len(plan.faults) > 2

    small = shrink(PLAN, fails)
    assert 2 < len(small.faults) < len(PLAN.faults)


def test_times_between_the_faults_that_are_left_stay_as_they_are() -> None:
    pair = [PLAN.faults[10], PLAN.faults[14]]
    small = shrink(
        PLAN,
        lambda plan: {(fault.kind, fault.target, fault.detail) for fault in pair} <= kinds(plan),
    )
    apart_s = small.faults[-1].at_s - small.faults[0].at_s
    assert apart_s == pytest.approx(pair[1].at_s - pair[0].at_s, abs=0.05)


def test_a_smaller_plan_fails_if_it_breaks_a_same_check_and_not_if_it_cannot_be_tried() -> None:
    spoken: list[str] = []

    def broken(plan: Plan) -> list[str]:
        if len(plan.faults) == 1:
            raise OSError("no stack")
        return ["ended"] if len(plan.faults) > 2 else ["visible"]

    fails = failing(["ended", "told"], broken, time.monotonic() + 60, spoken.append)
    small = shrink(PLAN, fails)
    assert len(small.faults) == 3
    assert any("could not be tried" in text for text in spoken)


def test_no_plan_is_tried_when_the_time_is_up() -> None:
    with pytest.raises(OutOfTime):
        failing(["ended"], lambda _plan: ["ended"], time.monotonic() - 1, lambda _text: None)(PLAN)
