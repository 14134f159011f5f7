"""Ordinary load, at which the objectives must hold."""

from loadtest.objectives import OBJECTIVES, PAID, UNHARMED
from loadtest.scenario import Crowd, Scenario, Step, at_least, at_most

SCENARIO = Scenario(
    name="baseline",
    proves="under ordinary load the service meets its objectives",
    steps=(Step(seconds=45, users=10),),
    crowds=(Crowd(kind="shopper", pace_s=2.5, declined=0.05),),
    thresholds=(
        *UNHARMED,
        *PAID,
        *OBJECTIVES,
        at_least("create.rate", 9),
        at_most("memory.api.max_mib", 600, local=True),
        at_most("memory.worker.max_mib", 200, local=True),
    ),
)
