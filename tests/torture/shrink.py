"""Cut a failing plan down to the fewest faults and clients that still fail: delta debugging.

Source: A. Zeller, R. Hildebrandt, Simplifying and Isolating Failure-Inducing Input, IEEE TSE 2002.
"""

import itertools
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from devstack.settings import SOURCE
from torture.plan import Plan, Planned
from torture.run import Say, run

# Load before the first fault and after the last one, in seconds.
_BEFORE_S: Final = 5.0
_AFTER_S: Final = 8.0

Fails = Callable[[Plan], bool]


class OutOfTime(Exception):
    """Take the smallest plan so far: there is no time to try another."""


def shrink(plan: Plan, fails: Fails) -> Plan:
    """Return a smaller plan that still fails; `fails` may raise OutOfTime at any try.

    Every fault that is left is needed, as far as one try of each smaller plan can tell.
    """
    best = [plan]

    def keeps_failing(smaller: Plan) -> bool:
        failed = fails(smaller)
        if failed:
            best[0] = smaller
        return failed

    try:
        _cut_faults(best, keeps_failing)
        _cut_customers(best, keeps_failing)
    except OutOfTime:
        pass
    return best[0]


def _cut_faults(best: list[Plan], fails: Fails) -> None:
    parts = 2
    if fails(_with(best[0], [])):
        return
    while len(best[0].faults) > 1:
        faults = best[0].faults
        for candidate in _candidates(faults, min(parts, len(faults))):
            if fails(_with(best[0], candidate)):
                parts = max(2, min(parts - 1, len(candidate)))
                break
        else:
            if parts >= len(faults):
                return
            parts *= 2


def _candidates(faults: Sequence[Planned], parts: int) -> Iterator[list[Planned]]:
    """Yield each part by itself, then all but each part."""
    bounds = [len(faults) * number // parts for number in range(parts + 1)]
    slices = [slice(*pair) for pair in itertools.pairwise(bounds)]
    yield from (list(faults[indexes]) for indexes in slices)
    if parts > 2:
        yield from ([*faults[: indexes.start], *faults[indexes.stop :]] for indexes in slices)


def _cut_customers(best: list[Plan], fails: Fails) -> None:
    customers = 1
    while customers < best[0].customers:
        if fails(msgspec.structs.replace(best[0], customers=customers)):
            return
        customers *= 2


def _with(plan: Plan, faults: Sequence[Planned]) -> Plan:
    """Return the plan with fewer faults, begun earlier and ended earlier accordingly."""
    if not faults:
        return msgspec.structs.replace(plan, faults=[])
    earlier_s = max(0.0, faults[0].at_s - _BEFORE_S)
    moved = [
        msgspec.structs.replace(fault, at_s=round(fault.at_s - earlier_s, 2)) for fault in faults
    ]
    length_s = max(fault.until_s for fault in moved) + _AFTER_S
    return msgspec.structs.replace(plan, faults=moved, length_s=min(length_s, plan.length_s))


def shrink_for(
    plan: Plan, checks: Sequence[str], minutes: float, say: Say, source: Path = SOURCE
) -> Plan:
    """Shrink for so long; a smaller plan fails if it breaks one of the same checks.

    `source` has the services that fail.
    """

    def broken(smaller: Plan) -> Collection[str]:
        return run(smaller, lambda _text: None, repeat="", source=source, hasty=True).broken

    return shrink(plan, failing(checks, broken, time.monotonic() + minutes * 60, say))


def failing(
    checks: Sequence[str], broken: Callable[[Plan], Collection[str]], until_s: float, say: Say
) -> Fails:
    """Return what tells whether a plan fails, by the checks that `broken` says it breaks.

    It raises OutOfTime after `until_s` (monotonic).
    """

    def fails(smaller: Plan) -> bool:
        if time.monotonic() > until_s:
            raise OutOfTime
        say(f"shrinking: {len(smaller.faults)} faults, {smaller.customers} customers")
        try:
            violated = broken(smaller)
        except Exception as error:  # noqa: BLE001 a stack that does not start says nothing of a plan
            say(f"  could not be tried: {error!r:.200}")
            return False
        failed = not set(checks).isdisjoint(violated)
        say(f"  {'still fails: ' + ', '.join(violated) if failed else 'holds'}")
        return failed

    return fails
