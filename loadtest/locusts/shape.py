"""The number of users over time, from the steps of a scenario."""

from collections.abc import Callable
from itertools import accumulate

from locust import LoadTestShape

from loadtest.scenario import Scenario

# After the last step, users finish their journeys and the workers report them.
DRAIN_S = 40.0
_LAST_REPORTS_S = 2.5


def shape_of(
    scenario: Scenario,
    *,
    begun: Callable[[], bool],
    busy: Callable[[], int],
    aborted: Callable[[], bool] = lambda: False,
) -> type[LoadTestShape]:
    """Make the class that Locust asks how many users there should be.

    The time of the steps starts when a worker has `begun`, which takes a while on a busy machine.
    `busy` counts the running journeys. The test ends when there are none, so that all purchases are
    reported. Once `aborted` returns true, no new customers start.
    """
    ends = list(accumulate(step.seconds for step in scenario.steps))

    class Shape(LoadTestShape):
        """The steps, then no customers."""

        idle_since: float | None = None

        def tick(self) -> tuple[int, float] | None:
            """Return users and spawn rate; None ends the test."""
            if not begun():
                return scenario.steps[0].users, scenario.steps[0].rate
            now: float = self.get_run_time()  # type: ignore[no-untyped-call]
            for step, end in zip(scenario.steps, ends, strict=True) if not aborted() else ():
                if now < end:
                    return step.users, step.rate
            return self._drained(now)

        def _drained(self, now: float) -> tuple[int, float] | None:
            if busy():
                self.idle_since = None
            elif self.idle_since is None:
                self.idle_since = now
            is_idle = self.idle_since is not None and now - self.idle_since > _LAST_REPORTS_S
            return None if is_idle or now > scenario.seconds + DRAIN_S else (0, 100.0)

    return Shape
