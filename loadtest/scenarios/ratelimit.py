"""One client that asks all the time, among others who do not."""

from loadtest.objectives import PAID, UNHARMED
from loadtest.scenario import Crowd, Scenario, Step, at_least, at_most

_LIMIT = 100

SCENARIO = Scenario(
    name="ratelimit",
    proves="a hot client is limited to about 100 requests a minute; others are not affected",
    steps=(Step(seconds=75, users=12),),
    crowds=(
        Crowd(kind="hot", fixed=2, pace_s=0.05),
        Crowd(kind="shopper", pace_s=2.5),
    ),
    thresholds=(
        *UNHARMED,
        *PAID,
        at_least("hot.status_200", _LIMIT),
        # The run is a window and a quarter: it touches two of them.
        at_most("hot.status_200", 2 * _LIMIT),
        at_least("hot.status_429", 500),
        at_most("create.status_429", 0),
        at_most("poll.status_429", 0),
        at_most("create.p99_ms", 300),
        at_most("hot.p99_ms", 100),
    ),
)
