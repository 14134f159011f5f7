"""While a dependency is away one delivery at a time tries; the others wait."""

import threading
import time

from prometheus_client import REGISTRY

from orders.errors import Unavailable
from orders.messaging.handling import NextAction, Pause
from unit.clock import Clock

LATER_S = time.monotonic() + 3600


def away(dependency: str = "payment", after_s: float = 10, *, pause: bool = True) -> Unavailable:
    return Unavailable("away", dependency=dependency, pause=pause, retry_after_s=after_s)


def entered(pause: Pause, until_s: float = 1e9) -> NextAction | None:
    """Enter without waiting: EXPIRED means "would wait"."""
    return pause.enter(min(until_s, pause._monotonic()), lambda: True)


def paused(reason: str) -> float:
    labels = {"queue": "q", "reason": reason}
    return REGISTRY.get_sample_value("messaging_consumer_paused", labels) or 0.0


def test_work_goes_on_until_something_is_away_and_then_one_probes() -> None:
    clock = Clock()
    pause = Pause("q", clock)
    assert entered(pause) is NextAction.WORK
    pause.leave(NextAction.WORK, away())
    assert pause.problem == "paused for 0 s: payment is unavailable"
    assert paused("payment") == 1
    assert entered(pause) is NextAction.EXPIRED
    clock.now_s = 10
    assert entered(pause) is NextAction.PROBE
    assert entered(pause) is NextAction.EXPIRED, "one at a time"
    pause.leave(NextAction.PROBE, away(after_s=5))
    clock.now_s = 14
    assert entered(pause) is NextAction.EXPIRED
    clock.now_s = 15
    assert entered(pause) is NextAction.PROBE
    pause.leave(NextAction.PROBE, None)
    assert entered(pause) is NextAction.WORK
    assert pause.problem is None
    assert paused("payment") == 0


def test_a_late_failure_does_not_put_the_next_probe_off() -> None:
    clock = Clock()
    pause = Pause("q", clock)
    pause.leave(NextAction.WORK, away())
    clock.now_s = 9
    pause.leave(NextAction.WORK, away())
    clock.now_s = 10
    assert entered(pause) is NextAction.PROBE


def test_a_failure_of_one_message_pauses_nobody_but_says_that_the_outage_goes_on() -> None:
    clock = Clock()
    pause = Pause("q", clock)
    pause.leave(NextAction.WORK, away(pause=False))
    assert entered(pause) is NextAction.WORK
    pause.leave(NextAction.WORK, away())
    clock.now_s = 10
    assert entered(pause) is NextAction.PROBE
    pause.leave(NextAction.PROBE, away(pause=False))
    assert entered(pause) is NextAction.EXPIRED


def test_the_reason_is_the_latest_one() -> None:
    clock = Clock()
    pause = Pause("q", clock)
    pause.leave(NextAction.WORK, away("postgres", 1))
    clock.now_s = 1
    assert entered(pause) is NextAction.PROBE
    pause.leave(NextAction.PROBE, away("payment", 1))
    assert (paused("postgres"), paused("payment")) == (0, 1)
    clock.now_s = 2
    assert entered(pause) is NextAction.PROBE
    pause.leave(NextAction.PROBE, None)
    assert (paused("postgres"), paused("payment")) == (0, 0)


def test_whoever_waits_goes_on_when_the_probe_succeeds_and_ends_with_the_process() -> None:
    pause = Pause("q")
    pause.leave(NextAction.WORK, away(after_s=0.2))
    actions: list[NextAction | None] = []

    def wait() -> None:
        action = pause.enter(LATER_S, lambda: True)
        actions.append(action)
        if action is NextAction.PROBE:
            pause.leave(action, None)

    threads = [threading.Thread(target=wait) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert actions.count(NextAction.PROBE) == 1
    assert actions.count(NextAction.WORK) == 4
    pause.leave(NextAction.WORK, away(after_s=60))
    thread = threading.Thread(target=wait)
    thread.start()
    pause.close()
    thread.join(10)
    assert actions[-1] is None


def test_a_delivery_that_is_lost_is_let_go_of() -> None:
    pause = Pause("q")
    pause.leave(NextAction.WORK, away(after_s=60))
    blocked = threading.Event()
    blocked.set()
    actions: list[NextAction | None] = []
    thread = threading.Thread(target=lambda: actions.append(pause.enter(LATER_S, blocked.is_set)))
    thread.start()
    blocked.clear()
    pause.wake()
    thread.join(10)
    assert actions == [None]
