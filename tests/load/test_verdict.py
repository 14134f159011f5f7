"""Figures become checks, checks and findings become an exit code."""

from loadtest.invariants import InvariantCheck
from loadtest.scenario import at_least, at_most, exactly
from loadtest.verdict import ExitCode, check, decide, worst

WELL, BROKEN = InvariantCheck("all is well", 0), InvariantCheck("all is well", 1, ("order 1",))


def test_everything_holding_is_0() -> None:
    checks = check([at_most("a", 1), at_least("a", 1), exactly("a", 1)], {"a": 1.0}, local=True)
    assert decide(checks, [WELL]) is ExitCode.PASSED


def test_a_breached_threshold_is_1() -> None:
    for threshold in (at_most("a", 1.9), at_least("a", 2.1), exactly("a", 3)):
        assert decide(check([threshold], {"a": 2.0}, local=True), [WELL]) is ExitCode.THRESHOLD


def test_a_broken_invariant_is_2_whatever_the_thresholds_say() -> None:
    assert decide([], [WELL, BROKEN]) is ExitCode.INVARIANT
    assert decide(check([at_most("a", 1)], {"a": 2}, local=True), [BROKEN]) is ExitCode.INVARIANT


def test_a_figure_that_was_not_measured_is_a_breach() -> None:
    [outcome] = check([at_most("a", 1)], {}, local=True)
    assert not outcome.holds
    assert outcome.value is None


def test_what_only_a_local_stack_shows_is_not_held_against_a_run_elsewhere() -> None:
    threshold = at_most("memory.api.max_mib", 1, local=True)
    assert not check([threshold], {}, local=True)[0].holds
    assert check([threshold], {}, local=False)[0].holds
    assert not check([threshold], {"memory.api.max_mib": 2}, local=False)[0].holds


def test_of_several_runs_a_broken_invariant_counts_most_then_one_that_failed() -> None:
    assert worst([ExitCode.INVARIANT, ExitCode.SETUP, ExitCode.THRESHOLD]) is ExitCode.INVARIANT
    assert worst([ExitCode.THRESHOLD, ExitCode.SETUP]) is ExitCode.SETUP
