"""Every process is replaced while customers shop."""

from loadtest.objectives import ALWAYS, PAID
from loadtest.scenario import Component, Crowd, Moment, Phase, Scenario, Step, at_least, at_most

SCENARIO = Scenario(
    name="rolling-deploy",
    proves="a deploy under load loses no order, and almost no request fails",
    steps=(Step(seconds=44, users=10),),
    crowds=(Crowd(kind="shopper", pace_s=2.5),),
    moments=(
        Moment(8, Component("reload", "api")),
        Moment(16, Component("restart", "relay")),
        Moment(24, Component("restart", "worker")),
        Moment(32, Component("restart", "notifier")),
    ),
    phases=(Phase("api", 8, 16), Phase("worker", 24, 32)),
    settle_s=90,
    thresholds=(
        *ALWAYS,
        *PAID,
        # Sent again with the same key each of them succeeds; nginx does not repeat a POST itself.
        at_most("all.error_ratio@api", 0.02),
        at_most("all.error_ratio", 0.01),
        at_most("orders.unanswered", 0),
        at_most("dead_letters", 0, local=True),
        at_least("create.requests@api", 15),
        at_most("completion.p99_s", 60),
    ),
)
