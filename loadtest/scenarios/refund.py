"""Support pays money back: in parts, several at once, and in whole."""

from loadtest.objectives import PAID, UNHARMED
from loadtest.scenario import Crowd, Moment, Phase, Scenario, Step, Upstream, at_least, at_most

SCENARIO = Scenario(
    name="refund",
    proves="partial and full refunds are paid once and never exceed the charge",
    steps=(Step(seconds=36, users=10),),
    crowds=(
        Crowd(kind="refunder", weight=4, pace_s=2),
        Crowd(kind="shopper", weight=1, pace_s=3),
    ),
    moments=(
        Moment(10, Upstream("payment", {"errorRatio": 0.2, "dropReplyRatio": 0.2})),
        Moment(24, Upstream("payment")),
    ),
    phases=(Phase("fault", 10, 24),),
    settle_s=120,
    thresholds=(
        *UNHARMED,
        *PAID,
        at_least("refund.status_202", 50),
        at_least("refund.status_409", 20),
        at_least("orders.partly_refunded", 5),
        at_least("orders.Refunded", 5),
        at_most("refund.p95_ms", 1000),
    ),
)
