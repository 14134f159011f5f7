"""The number of users over time, from the steps of a scenario."""

from itertools import accumulate

from locust import LoadTestShape

from loadtest.scenario import Scenario

# After the last step everybody finishes what they are at, and the workers report it.
DRAIN_S = 12.0
_LAST_REPORTS_S = 3.0


def shape_of(scenario: Scenario) -> type[LoadTestShape]:
    """Make the class that Locust asks how many users there should be."""
    ends = list(accumulate(step.seconds for step in scenario.steps))

    class Shape(LoadTestShape):
        """The steps, then nobody."""

        emptied_at: float | None = None

        def tick(self) -> tuple[int, float] | None:
            """Give users and spawn rate; None ends the test."""
            now: float = self.get_run_time()  # type: ignore[no-untyped-call]
            for step, end in zip(scenario.steps, ends, strict=True):
                if now < end:
                    return step.users, step.rate
            return self._drained(now)

        def _drained(self, now: float) -> tuple[int, float] | None:
            users = self.get_current_user_count()  # type: ignore[no-untyped-call]
            if self.emptied_at is None and users == 0:
                self.emptied_at = now
            empty = self.emptied_at is not None and now - self.emptied_at > _LAST_REPORTS_S
            return None if empty or now > scenario.seconds + 2 * DRAIN_S else (0, 1000.0)

    return Shape
