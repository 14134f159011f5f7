"""Payment is slow, fails, loses answers and declines."""

from loadtest.objectives import UNHARMED
from loadtest.scenario import Crowd, Moment, Phase, Scenario, Step, Upstream, at_least, at_most

_BAD = {
    "latencyMs": 150,
    "jitterMs": 200,
    "errorRatio": 0.3,
    "dropReplyRatio": 0.2,
    "declineRatio": 0.1,
}

SCENARIO = Scenario(
    name="payment-degraded",
    proves="with Payment failing and losing answers, no customer is charged twice or for nothing",
    steps=(Step(seconds=40, users=10),),
    crowds=(Crowd(kind="shopper", pace_s=3),),
    moments=(Moment(8, Upstream("payment", _BAD)), Moment(28, Upstream("payment"))),
    phases=(Phase("fault", 8, 28),),
    settle_s=120,
    thresholds=(
        *UNHARMED,
        at_most("create.p95_ms@fault", 300),
        at_least("orders.accepted", 60),
        at_most("completion.p99_s", 60),
    ),
)
