"""Redis goes and comes back."""

from loadtest.objectives import PAID, UNHARMED
from loadtest.scenario import Component, Crowd, Moment, Phase, Scenario, Step, at_least, at_most

SCENARIO = Scenario(
    name="redis-down",
    proves="without Redis clients see no errors; only the database has more work",
    steps=(Step(seconds=32, users=12),),
    crowds=(Crowd(kind="shopper", pace_s=2.5),),
    moments=(Moment(8, Component("stop", "valkey")), Moment(22, Component("start", "valkey"))),
    phases=(Phase("fault", 8, 22),),
    thresholds=(
        *UNHARMED,
        *PAID,
        at_least("create.requests@fault", 20),
        at_most("create.p95_ms@fault", 300),
        at_most("poll.p95_ms@fault", 200),
    ),
)
