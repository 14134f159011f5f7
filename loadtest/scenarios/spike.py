"""A flash sale: many customers at once for a small stock."""

from loadtest.objectives import PAID, UNHARMED
from loadtest.scenario import Crowd, Phase, Scenario, Step, at_least, at_most, exactly

_PRODUCT, _UNITS = 777, 100

SCENARIO = Scenario(
    name="spike",
    proves="a flash sale of 100 units sells exactly 100, and refuses everybody else at once",
    steps=(
        Step(seconds=8, users=8),
        Step(seconds=14, users=68, rate=100),
        Step(seconds=14, users=8, rate=100),
    ),
    crowds=(
        Crowd(kind="shopper", fixed=8, pace_s=2.5),
        Crowd(kind="buyer", product=_PRODUCT, pace_s=2.5),
    ),
    stock={_PRODUCT: _UNITS},
    phases=(Phase("sale", 8, 22), Phase("after", 28, 36)),
    thresholds=(
        *UNHARMED,
        *PAID,
        exactly(f"product.{_PRODUCT}.sold", _UNITS),
        at_least("orders.bought", 150),
        at_most("create.p95_ms@sale", 1000),
        at_most("create.p95_ms@after", 300),
    ),
)
