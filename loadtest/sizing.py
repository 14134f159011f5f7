"""Run a scenario longer, shorter, or with more customers than it was written for."""

import msgspec

from loadtest.scenario import Moment, Phase, Scenario, Step


def sized(scenario: Scenario, *, seconds: float | None = None, scale: float = 1) -> Scenario:
    """Stretch everything that has a time to `seconds` in all, and multiply the customers."""
    factor = 1 if seconds is None else seconds / scenario.seconds
    if factor == scale == 1:
        return scenario
    return msgspec.structs.replace(
        scenario,
        steps=tuple(_step(step, factor, scale) for step in scenario.steps),
        moments=tuple(Moment(one.at_s * factor, one.act) for one in scenario.moments),
        phases=tuple(
            Phase(one.name, one.from_s * factor, one.until_s * factor) for one in scenario.phases
        ),
    )


def _step(step: Step, factor: float, scale: float) -> Step:
    return Step(
        seconds=step.seconds * factor,
        users=max(1, round(step.users * scale)),
        rate=step.rate * scale,
    )
