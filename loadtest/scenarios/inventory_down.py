"""Inventory does not answer, then answers with errors only."""

from loadtest.objectives import PAID, UNHARMED
from loadtest.scenario import (
    Component,
    Crowd,
    Moment,
    Phase,
    Scenario,
    Step,
    Upstream,
    at_least,
    at_most,
)

SCENARIO = Scenario(
    name="inventory-down",
    proves="without Inventory orders are still accepted, and end once it is back",
    steps=(Step(seconds=40, users=10),),
    # All shoppers may be waiting for an order to end, so other customers keep buying.
    crowds=(Crowd(kind="shopper", pace_s=3), Crowd(kind="drive-by", fixed=2, pace_s=1)),
    moments=(
        Moment(8, Component("pause", "inventory")),
        Moment(18, Component("resume", "inventory")),
        Moment(20, Upstream("inventory", {"errorRatio": 1.0})),
        Moment(28, Upstream("inventory")),
    ),
    phases=(Phase("silent", 8, 18), Phase("errors", 20, 28)),
    settle_s=120,
    thresholds=(
        *UNHARMED,
        *PAID,
        # Until a process's breaker opens, its requests wait 300 ms each, one after the other.
        at_most("create.p95_ms@silent", 1500),
        at_most("create.p95_ms@errors", 1000),
        at_least("create.requests@silent", 10),
        at_least("create.requests@errors", 5),
        at_most("completion.p99_s", 60),
    ),
)
