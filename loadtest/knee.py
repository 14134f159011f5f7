"""Find the knee: the step after which more customers bring waiting, not work."""

from itertools import pairwise

import msgspec

from loadtest import timeline
from loadtest.locusts.counting import WorkerReport
from loadtest.scenario import Scenario

# A step has to bring so much more work for its customers; below, the curve has bent.
_WORTH = 0.5
_SLOW_MS = 300.0  # the service's own objective for a POST
_FAILING = 0.01
_WARM_UP_S = 2.0


class Level(msgspec.Struct, frozen=True):
    """What one step of the shape came to."""

    users: int
    rate: float
    p99_ms: float
    error_ratio: float


def levels(reports: list[WorkerReport], scenario: Scenario) -> list[Level]:
    """Boil each step down, leaving out its first seconds."""
    result, began_s = [], 0.0
    for step in scenario.steps:
        ended_s = began_s + step.seconds
        counts = timeline.window(reports, began_s + _WARM_UP_S, ended_s).get(timeline.ALL)
        if counts is not None:
            figures = timeline.figures_of(counts, step.seconds - _WARM_UP_S)
            result.append(
                Level(step.users, figures["rate"], figures["p99_ms"], figures["error_ratio"])
            )
        began_s = ended_s
    return result


def knee(levels: list[Level]) -> Level | None:
    """Give the last step that was worth it; None when already the first was not."""
    if not levels or not _healthy(levels[0]):
        return None
    for previous, level in pairwise(levels):
        gained = (level.rate - previous.rate) / previous.rate
        offered = (level.users - previous.users) / previous.users
        if not _healthy(level) or gained < _WORTH * offered:
            return previous
    return levels[-1]


def _healthy(level: Level) -> bool:
    return level.p99_ms <= _SLOW_MS and level.error_ratio <= _FAILING
