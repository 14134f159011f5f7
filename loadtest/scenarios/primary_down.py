"""PostgreSQL's primary stops and comes back."""

from loadtest.objectives import ALWAYS, PAID
from loadtest.scenario import Component, Crowd, Moment, Phase, Scenario, Step, at_least, at_most

SCENARIO = Scenario(
    name="primary-down",
    proves="without the primary no order is accepted and none lost; all continues once it is back",
    steps=(Step(seconds=40, users=10),),
    crowds=(Crowd(kind="shopper", pace_s=3),),
    moments=(
        Moment(8, Component("stop", "postgres")),
        Moment(20, Component("start", "postgres")),
    ),
    phases=(Phase("fault", 8, 20), Phase("after", 30, 40)),
    settle_s=120,
    thresholds=(
        *ALWAYS,
        *PAID,
        # Nothing can be accepted meanwhile; a retry with the same key succeeds later.
        at_most("all.error_ratio@after", 0),
        at_most("orders.unanswered", 0),
        at_most("dead_letters", 0, local=True),
        at_least("create.status_202@after", 10),
        at_most("completion.p99_s", 90),
    ),
)
