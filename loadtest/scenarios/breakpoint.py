"""More and more customers, until more of them bring no more work."""

from loadtest.objectives import ALWAYS, PAID
from loadtest.scenario import Crowd, Scenario, Step, at_least, at_most

SCENARIO = Scenario(
    name="breakpoint",
    proves="where the knee is, and that beyond it nothing is lost, only slower",
    steps=tuple(
        Step(seconds=9, users=users, rate=60) for users in (5, 10, 20, 30, 45, 65, 90, 130)
    ),
    crowds=(Crowd(kind="shopper", pace_s=2.0),),
    knee=True,
    thresholds=(
        *ALWAYS,
        *PAID,
        at_least("knee.rate", 40),
        at_most("all.error_ratio", 0.01),
        at_most("orders.unanswered", 0),
    ),
)
