"""RabbitMQ goes and comes back."""

from loadtest.objectives import PAID, UNHARMED
from loadtest.scenario import Component, Crowd, Moment, Phase, Scenario, Step, at_least, at_most

SCENARIO = Scenario(
    name="rabbitmq-down",
    proves="without RabbitMQ orders are still accepted, and all of them end once it is back",
    steps=(Step(seconds=40, users=10),),
    crowds=(Crowd(kind="shopper", pace_s=3),),
    moments=(
        Moment(8, Component("stop", "rabbitmq")),
        Moment(22, Component("start", "rabbitmq")),
    ),
    phases=(Phase("fault", 8, 22),),
    settle_s=120,
    thresholds=(
        *UNHARMED,
        *PAID,
        at_least("create.requests@fault", 10),
        at_most("create.p95_ms@fault", 300),
        at_most("completion.p99_s", 60),
    ),
)
