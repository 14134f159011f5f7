"""PostgreSQL's replica stops and comes back."""

from loadtest.objectives import PAID, UNHARMED
from loadtest.scenario import Component, Crowd, Moment, Phase, Scenario, Step, at_least, at_most

SCENARIO = Scenario(
    name="replica-down",
    proves="clients do not notice that the replica is down: reads go to the primary",
    steps=(Step(seconds=40, users=10),),
    crowds=(Crowd(kind="shopper", pace_s=3),),
    moments=(
        Moment(8, Component("stop", "postgres-replica")),
        Moment(20, Component("start", "postgres-replica")),
    ),
    phases=(Phase("fault", 8, 20), Phase("after", 30, 40)),
    settle_s=120,
    thresholds=(
        *UNHARMED,
        *PAID,
        at_least("read.requests", 5),
        at_most("poll.p95_ms@fault", 300),
        at_most("list.p95_ms@fault", 300),
    ),
)
