"""The kinds of customers, and the classes Locust makes its users from."""

import logging
import types
from collections.abc import Callable
from typing import Any, Final

import gevent
from locust import FastHttpUser, constant_pacing, task
from locust.user.task import LOCUST_STATE_STOPPING

from loadtest.locusts import reading, reversing, shopping, storming
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
    "hot": reading.hammer,
    "deep-reader": reading.first_and_deep,
}
_log: Final = logging.getLogger(__name__)
# Longer than the gateway's own limit (30 s): whose deadline it was is then never in doubt.
_ANSWER_WITHIN_S: Final = 35.0


def made_for(run: Context) -> list[type[FastHttpUser]]:
    """Make a user class for each crowd of the scenario."""
    return [_user(run, crowd) for crowd in run.scenario.crowds]


def _is_stopping(user: Any) -> bool:
    """Tell whether Locust waits for this user to come to an end."""
    return bool(user._state == LOCUST_STATE_STOPPING)  # noqa: SLF001 nothing public says it


def _user(run: Context, crowd: Crowd) -> type[FastHttpUser]:
    journey = KINDS[crowd.kind]

    def go(user: Any) -> None:
        # Who is to begin counts as asleep in Locust, which ends sleepers at once: let it do so now.
        gevent.sleep(0)
        with run.tally.journey():
            client = Client(user.client, run.tally)
            try:
                journey(Journey(run, crowd, client, closing=lambda: _is_stopping(user)))
            except Exception as error:  # noqa: BLE001 whatever an answer made of it: counted, not forgiven
                _log.exception("a journey broke off")
                client.wrong(crowd.kind, type(error).__name__)

    body = {
        "abstract": False,
        "weight": crowd.weight,
        "fixed_count": crowd.fixed,
        "wait_time": constant_pacing(crowd.pace_s),
        "network_timeout": _ANSWER_WITHIN_S,
        "connection_timeout": 5.0,
        "default_headers": {"User-Agent": "orderservice-loadtest"},
        "go": task(go),
    }
    name = crowd.kind.title().replace("-", "")
    return types.new_class(name, (FastHttpUser,), exec_body=lambda space: space.update(body))
