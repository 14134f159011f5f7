"""Long and even: `--duration 3600` for an hour, two minutes without."""

from loadtest.objectives import OBJECTIVES, PAID, UNHARMED
from loadtest.scenario import Crowd, Scenario, Step, at_most

SCENARIO = Scenario(
    name="soak",
    proves="memory of api, worker, relay and Locust grows by a few MiB a minute at most",
    steps=(Step(seconds=120, users=10),),
    crowds=(Crowd(kind="shopper", pace_s=2.5),),
    thresholds=(
        *UNHARMED,
        *PAID,
        *OBJECTIVES,
        # Caches and pools still fill in the first minutes: these catch a gross leak. A small one is
        # read from the slopes that an hour shows.
        at_most("memory.api.slope_mib_per_min", 6, local=True),
        at_most("memory.worker.slope_mib_per_min", 4, local=True),
        at_most("memory.relay.slope_mib_per_min", 3, local=True),
        at_most("memory.locust.slope_mib_per_min", 3),
    ),
)
