"""A plan follows from its seed alone, and is data that can be kept and read back."""

import itertools
from collections import Counter

import pytest

from torture import plan as plans
from torture.faults import ACTIONS
from torture.plan import SORTS, Planned, touched
from torture.points import POINTS

SEEDS = range(12)


def test_equal_seeds_make_equal_plans_and_others_make_others() -> None:
    assert plans.plan(5, 300, 6) == plans.plan(5, 300, 6)
    assert plans.plan(5, 300, 6) != plans.plan(6, 300, 6)


def test_a_plan_is_kept_as_json_and_read_back() -> None:
    plan = plans.plan(5, 300, 6)
    assert plans.decode(plans.encode(plan)) == plan


def test_every_kind_of_fault_and_every_failpoint_comes_and_can_be_done() -> None:
    faults = [fault for seed in range(40) for fault in plans.plan(seed, 300, 6).faults]
    assert {fault.kind for fault in faults} == SORTS.keys() == ACTIONS.keys()
    points = Counter(
        fault.detail.partition(":")[0] for fault in faults if fault.kind == "failpoint"
    )
    assert points.keys() == POINTS.keys()


@pytest.mark.parametrize("seed", SEEDS)
def test_faults_end_within_the_run_and_none_touches_what_another_holds(seed: int) -> None:
    plan = plans.plan(seed, 300, 6)
    assert all(fault.until_s <= plan.length_s for fault in plan.faults)
    assert plan.faults == sorted(plan.faults, key=lambda fault: fault.at_s)
    for fault, other in itertools.combinations(plan.faults, 2):
        assert not (overlap(fault, other) and touched(fault) & touched(other)), (fault, other)


def test_what_has_to_come_comes_in_nearly_every_minute() -> None:
    minutes = [{fault.kind for fault in plans.plan(seed, 60, 6).faults} for seed in range(100)]
    often = Counter(kind for kinds in minutes for kind in kinds)
    assert [kind for kind, sort in SORTS.items() if sort.every_s and often[kind] < 90] == []


def test_a_primary_fails_in_nearly_every_short_run() -> None:
    short = [plans.plan(seed, 30, 4).faults for seed in range(100)]
    assert sum(any(fault.kind == "promote" for fault in faults) for faults in short) >= 90


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_else_is_wrong_while_a_fault_must_be_alone(seed: int) -> None:
    faults = plans.plan(seed, 300, 6).faults
    for fault, other in itertools.permutations(faults, 2):
        assert not (SORTS[fault.kind].alone and overlap(fault, other)), (fault, other)


def overlap(fault: Planned, other: Planned) -> bool:
    return fault.at_s < other.until_s and other.at_s < fault.until_s
