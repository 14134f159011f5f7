"""The receiver of the webhooks stops and comes back."""

from loadtest.objectives import PAID, UNHARMED
from loadtest.scenario import Component, Crowd, Moment, Phase, Scenario, Step, at_least, at_most

SCENARIO = Scenario(
    name="receiver-down",
    proves="without the webhook receiver orders are still accepted and still end",
    steps=(Step(seconds=40, users=10),),
    crowds=(Crowd(kind="shopper", pace_s=3),),
    moments=(
        Moment(8, Component("stop", "webhooks")),
        Moment(20, Component("start", "webhooks")),
    ),
    phases=(Phase("fault", 8, 20), Phase("after", 30, 40)),
    settle_s=120,
    thresholds=(
        *UNHARMED,
        *PAID,
        at_least("create.requests@fault", 10),
        at_most("create.p95_ms@fault", 300),
        at_most("completion.p99_s", 30),
    ),
)
