"""Messages that no consumer can read, in the middle of the traffic."""

from loadtest.objectives import ALWAYS, PAID
from loadtest.scenario import Crowd, Moment, Phase, Poison, Scenario, Step, at_most, exactly

_EACH = 12

SCENARIO = Scenario(
    name="poison",
    proves="unreadable messages are dead-lettered once each, and do not delay other messages",
    steps=(Step(seconds=30, users=10),),
    crowds=(Crowd(kind="shopper", pace_s=2.5),),
    moments=(
        Moment(8, Poison(_EACH)),
        Moment(14, Poison(_EACH, "order-notifications")),
    ),
    phases=(Phase("poisoned", 8, 20),),
    thresholds=(
        *ALWAYS,
        *PAID,
        at_most("all.error_ratio", 0),
        exactly("dead_letters", 2 * _EACH),
        at_most("completion.p99_s", 30),
    ),
)
