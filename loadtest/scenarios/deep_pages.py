"""A million orders, fifty thousand of them of one customer."""

from loadtest.objectives import UNHARMED
from loadtest.scenario import Crowd, Scenario, Seed, Step, at_least, at_most

SCENARIO = Scenario(
    name="deep-pages",
    proves="page 2,000 of a list costs what the first page costs",
    steps=(Step(seconds=40, users=8),),
    crowds=(Crowd(kind="deep-reader", pace_s=0.5),),
    seed=Seed(orders=1_000_000, customer=4_242_424_242, of_customer=50_000),
    thresholds=(
        *UNHARMED,
        at_least("deep-page.requests", 100),
        at_most("first-page.p95_ms", 100),
        at_most("deep-page.p95_ms", 100),
        at_most("deep-page.p50_of_first", 1.5),
    ),
)
