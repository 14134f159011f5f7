"""Customers who place orders at three times the rate that the service can accept."""

import random
import time
from typing import Final

import gevent
from gevent.pool import Group

from loadtest.locusts.journey import Journey
from loadtest.phases import KNEE, OVERLOAD

TIMES: Final = 3
# The answer of a service that sheds load. It is not retried, as most customers would not.
_SHED: Final = 503
_IDLE_S: Final = 0.1


class Knee:
    """The rate at which this process's customers were served while each waited for its answer."""

    def __init__(self) -> None:
        self.began_s: float | None = None
        self.served = 0
        self.users: set[int] = set()

    def rate(self, seconds: float) -> float:
        """Return purchases a second of one of its users."""
        return self.served / seconds / max(1, len(self.users))


_knee: Final = Knee()


def overload(journey: Journey) -> None:
    """Buy repeatedly; in the phase `overload` at three times that rate, without waiting.

    Each process measures its own rate and multiplies its own load.
    """
    if _knee.began_s is None:
        _knee.began_s = time.monotonic()
    now_s = time.monotonic() - _knee.began_s
    phases = {phase.name: phase for phase in journey.run.scenario.phases}
    knee, over = phases[KNEE], phases[OVERLOAD]
    if now_s < knee.until_s:
        if _offer(journey) and now_s >= knee.from_s:
            _knee.served += 1
            _knee.users.add(id(journey.client.session))
    elif over.from_s <= now_s < over.until_s:
        rate = TIMES * _knee.rate(knee.until_s - knee.from_s)
        _arrive(journey, rate, _knee.began_s + over.until_s)
    else:
        gevent.sleep(_IDLE_S)


def _arrive(journey: Journey, rate: float, deadline: float) -> None:
    """Start `rate` purchases a second, at random moments, without waiting for answers."""
    group = Group()
    while time.monotonic() < deadline and rate > 0 and not journey.closing():
        gevent.sleep(random.expovariate(rate))
        group.spawn(_offer, journey.another())
    group.join(raise_error=True)


def _offer(journey: Journey) -> bool:
    """Send a purchase once; return whether it was accepted."""
    purchase = journey.purchase()
    try:
        reply = journey.post("create", purchase, (202, _SHED), names={_SHED: "shed"})
        if reply.status == _SHED:
            purchase.refused = _SHED
        return reply.status == 202
    finally:
        journey.settle(purchase)
