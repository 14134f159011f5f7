"""Orders come at three times the rate that the service can take."""

from loadtest.phases import KNEE, OVERLOAD
from loadtest.scenario import Crowd, Moment, Phase, Scenario, Step, Upstream, at_least, at_most

# Each POST asks Inventory, which takes 40 ms here, and the api has one process. It is the
# bottleneck at about 20 orders/s, which leaves even a slow machine partly idle.
_SLOW = {"latencyMs": 40}
_SETTINGS = {
    "ORDERS_API_WORKERS": "1",
    "ORDERS_ORDER_STOCK_CHECK_TTL_S": "0.001",
    "ORDERS_API_MAX_WAIT_MS": "200",  # for p99 <= 300 ms; the operator sets 1000
}

SCENARIO = Scenario(
    name="overload",
    proves="at three times the load of the knee, goodput stays the same, and accepted requests are"
    " in time",
    steps=(Step(seconds=40, users=3),),
    crowds=(Crowd(kind="overloader", pace_s=0),),
    settings=_SETTINGS,
    moments=(Moment(0, Upstream("inventory", _SLOW)), Moment(38, Upstream("inventory"))),
    phases=(Phase(KNEE, 4, 14), Phase(OVERLOAD, 18, 36)),
    settle_s=180,
    thresholds=(
        at_most("client.wrong", 0),
        at_most("memory.locust.max_mib", 250),
        at_most("orders.unanswered", 0),
        at_most("orders.undeclined_failed", 0),
        at_most("all.error_ratio", 0),
        at_most(f"create.p99_ms@{KNEE}", 300),
        at_most(f"create.p99_ms@{OVERLOAD}", 300),
        at_least("overload.goodput_of_knee", 0.9),
        at_least("overload.arrivals_of_knee", 2.5),
    ),
)
