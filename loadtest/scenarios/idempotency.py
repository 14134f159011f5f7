"""Clients that send everything eight times at once."""

from loadtest.objectives import PAID, UNHARMED
from loadtest.scenario import Crowd, Scenario, Step, at_least, at_most

SCENARIO = Scenario(
    name="idempotency",
    proves="a purchase sent many times at once is one order; another body under its key is refused",
    steps=(Step(seconds=20, users=8),),
    crowds=(Crowd(kind="stormer", pace_s=1),),
    thresholds=(
        *UNHARMED,
        *PAID,
        at_least("orders.accepted", 20),
        at_least("reuse.status_422", 20),
        at_least("replay.status_202", 20),
        at_most("create.p95_ms", 3000),
    ),
)
