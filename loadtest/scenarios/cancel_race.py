"""Several people cancel one order around the moment of its payment, all at once."""

from loadtest.objectives import PAID, UNHARMED
from loadtest.scenario import Crowd, Moment, Phase, Scenario, Step, Upstream, at_least, at_most

# A payment takes 150 to 350 ms, so that most cancellations meet one that is under way.
_SLOW = {"latencyMs": 150, "jitterMs": 200}

SCENARIO = Scenario(
    name="cancel-race",
    proves="whenever an order is cancelled, money and stock balance and every answer is true",
    steps=(Step(seconds=40, users=12),),
    crowds=(
        Crowd(kind="canceller", weight=5, pace_s=2, declined=0.1),
        Crowd(kind="shopper", weight=1, pace_s=3),
    ),
    moments=(
        Moment(0, Upstream("payment", _SLOW)),
        Moment(16, Upstream("payment", _SLOW | {"errorRatio": 0.2, "dropReplyRatio": 0.2})),
        Moment(30, Upstream("payment")),
    ),
    phases=(Phase("fault", 16, 30),),
    settle_s=120,
    thresholds=(
        *UNHARMED,
        *PAID,
        # Every outcome of a cancellation occurred.
        at_least("cancel.status_202", 50),
        at_least("cancel.status_200", 50),
        at_least("cancel.status_409", 1),
        at_least("orders.Cancelled", 5),
        at_least("orders.Refunded", 5),
        at_least("orders.Failed", 1),
        at_most("cancel.p95_ms", 1000),
    ),
)
