"""Run a scenario longer, shorter, or with more customers than it was written for."""

import msgspec

from loadtest.scenario import Crowd, Moment, Phase, Scenario, Step


def sized(
    scenario: Scenario, *, seconds: float | None = None, scale: float = 1, rate: float | None = None
) -> Scenario:
    """Stretch everything that has a time to `seconds` in all, and multiply the customers.

    With `rate`, that many journeys begin a second during the steps with the most users. These are
    open arrivals: they do not wait for answers.
    """
    factor = 1 if seconds is None else seconds / scenario.seconds
    if factor == scale == 1 and rate is None:
        return scenario
    return msgspec.structs.replace(
        scenario,
        steps=tuple(_step(step, factor, scale) for step in scenario.steps),
        crowds=_arriving(scenario, scale, rate),
        moments=tuple(Moment(moment.at_s * factor, moment.act) for moment in scenario.moments),
        phases=tuple(
            Phase(phase.name, phase.from_s * factor, phase.until_s * factor)
            for phase in scenario.phases
        ),
    )


def _arriving(scenario: Scenario, scale: float, rate: float | None) -> tuple[Crowd, ...]:
    if rate is None:
        return scenario.crowds
    users = max(_step(step, 1, scale).users for step in scenario.steps)
    return tuple(
        msgspec.structs.replace(crowd, arrivals_per_s=rate / users) for crowd in scenario.crowds
    )


def _step(step: Step, factor: float, scale: float) -> Step:
    return Step(
        seconds=step.seconds * factor,
        users=max(1, round(step.users * scale)),
        rate=step.rate * scale,
    )
