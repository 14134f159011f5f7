"""The kinds of customers, and the classes Locust makes its users from."""

import logging
import random
import types
from collections.abc import Callable
from typing import Any, Final

import gevent
from locust import FastHttpUser, constant_pacing, task
from locust.user.task import LOCUST_STATE_STOPPING

from loadtest.locusts import overloading, reading, reversing, shopping, storming
from loadtest.locusts.client import Client
from loadtest.locusts.context import Context
from loadtest.locusts.journey import Journey
from loadtest.scenario import Crowd

KINDS: Final[dict[str, Callable[[Journey], None]]] = {
    "shopper": shopping.shop,
    "buyer": shopping.buy_and_watch,
    "drive-by": shopping.buy_and_leave,
    "stormer": storming.storm,
    "canceller": reversing.cancel,
    "refunder": reversing.refund,
    "overloader": overloading.overload,
    "hot": reading.read_one_order,
    "deep-reader": reading.first_and_deep,
}
_log: Final = logging.getLogger(__name__)
# Longer than the gateway's timeout (30 s), so that a timeout here is not the gateway's.
_ANSWER_WITHIN_S: Final = 35.0
# Connections of one user, whose journeys may overlap; and journeys that a process may have open.
_CONNECTIONS: Final = 1000
_MOST_OPEN: Final = 2000


def made_for(run: Context) -> list[type[FastHttpUser]]:
    """Make a user class for each crowd of the scenario."""
    return [_user(run, crowd) for crowd in run.scenario.crowds]


def _is_stopping(user: Any) -> bool:
    """Return whether Locust is stopping this user."""
    return bool(user._state == LOCUST_STATE_STOPPING)  # noqa: SLF001 nothing public says it


def _pauses(crowd: Crowd) -> Callable[[Any], float]:
    if not crowd.arrivals_per_s:
        pause: Callable[[Any], float] = constant_pacing(crowd.pace_s)
        return pause
    return lambda _: random.expovariate(crowd.arrivals_per_s)


def _user(run: Context, crowd: Crowd) -> type[FastHttpUser]:
    journey = KINDS[crowd.kind]

    def go(user: Any) -> None:
        # Locust regards a new user as sleeping and stops it at once. Let it do so now.
        gevent.sleep(0)
        begin(user)

    def arrive(user: Any) -> None:
        if run.tally.busy < _MOST_OPEN:
            gevent.spawn(begin, user)  # Locust does not end it together with the user
        else:
            Client(user.client, run.tally).wrong("arrivals", "more are open than can be driven")

    def begin(user: Any) -> None:
        with run.tally.journey():
            client = Client(user.client, run.tally)
            try:
                journey(Journey(run, crowd, client, closing=lambda: _is_stopping(user)))
            except Exception as error:  # noqa: BLE001 any error of a journey counts as a wrong answer
                _log.exception("a journey broke off")
                client.wrong(crowd.kind, type(error).__name__)

    body = {
        "abstract": False,
        "weight": crowd.weight,
        "fixed_count": crowd.fixed,
        "wait_time": _pauses(crowd),
        "concurrency": _CONNECTIONS,
        "network_timeout": _ANSWER_WITHIN_S,
        "connection_timeout": 5.0,
        "default_headers": {"User-Agent": "orderservice-loadtest"},
        "go": task(arrive if crowd.arrivals_per_s else go),
    }
    name = crowd.kind.title().replace("-", "")
    return types.new_class(name, (FastHttpUser,), exec_body=lambda space: space.update(body))
