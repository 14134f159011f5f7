"""A handful of customers do everything."""

from loadtest.objectives import PAID, UNHARMED
from loadtest.scenario import Crowd, Scenario, Step, at_least, at_most

SCENARIO = Scenario(
    name="smoke",
    proves="every kind of request works, from the purchase to the last page of the list",
    steps=(Step(seconds=10, users=4),),
    crowds=(Crowd(kind="shopper", pace_s=2),),
    thresholds=(
        *UNHARMED,
        *PAID,
        at_most("create.p99_ms", 2000),
        at_least("orders.accepted", 10),
        at_least("walk.requests", 5),
    ),
)
