"""The verdict: figures against thresholds, findings, and the exit code."""

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from loadtest.invariants import InvariantCheck
from loadtest.scenario import Bound, Threshold


class ExitCode(enum.IntEnum):
    """The verdict of the run."""

    PASSED = 0
    THRESHOLD = 1
    INVARIANT = 2
    SETUP = 3


_GRAVITY: Final = (ExitCode.PASSED, ExitCode.THRESHOLD, ExitCode.SETUP, ExitCode.INVARIANT)


class Check(msgspec.Struct, frozen=True):
    """The result of one threshold; `value` is None if the figure was not measured."""

    threshold: Threshold
    value: float | None
    holds: bool

    @property
    def text(self) -> str:
        """Return the threshold as text."""
        return f"{self.threshold.figure} {self.threshold.bound} {self.threshold.limit:g}"


def check(
    thresholds: Iterable[Threshold], figures: Mapping[str, float], *, local: bool
) -> list[Check]:
    """Compare the figures with every threshold."""
    return [
        _check(threshold, figures.get(threshold.figure), local=local) for threshold in thresholds
    ]


def _check(threshold: Threshold, value: float | None, *, local: bool) -> Check:
    if value is None:
        return Check(threshold, None, holds=threshold.local and not local)
    match threshold.bound:
        case Bound.AT_MOST:
            return Check(threshold, value, value <= threshold.limit)
        case Bound.AT_LEAST:
            return Check(threshold, value, value >= threshold.limit)
        case Bound.EXACTLY:
            return Check(threshold, value, value == threshold.limit)


def worst(verdicts: Iterable[ExitCode]) -> ExitCode:
    """Return the worst verdict: broken invariant, then failed run, then threshold."""
    return max(verdicts, key=_GRAVITY.index)


def decide(checks: Sequence[Check], findings: Sequence[InvariantCheck]) -> ExitCode:
    """Return the exit code; a broken invariant outweighs any threshold."""
    if not all(finding.holds for finding in findings):
        return ExitCode.INVARIANT
    return ExitCode.PASSED if all(check.holds for check in checks) else ExitCode.THRESHOLD
