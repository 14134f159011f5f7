"""Twenty minutes without Payment, Inventory, the webhooks' receiver or a server cost time only."""

from collections.abc import Callable, Iterator

import pytest

from failover import outages, stack
from failover.clients import Pace
from failover.evidence import purge_dead_letters
from failover.runs import Run, broken_promises
from failover.stack import Stack

Say = Callable[[str], None]
SETTLED_WITHIN_S = 120.0
# At least ten orders a minute from each, and the patience to sit an outage out.
SLOW = Pace(least_s=1.0, most_s=3.0, give_up_after_s=outages.OUTAGE_S + 90)

pytestmark = pytest.mark.failover


@pytest.fixture(autouse=True)
def nothing_left_behind(on: Stack) -> Iterator[None]:
    """Empty the dead-letter queues after each test."""
    yield
    purge_dead_letters(on)


@pytest.fixture(scope="module")
def on() -> Iterator[Stack]:
    with stack.running(outages.sped_up(), standbys=1, synchronous=False) as running:
        outages.speed_retries_up(running)
        yield running


@pytest.mark.parametrize("outage", outages.OUTAGES)
def test_everything_ends_after_twenty_minutes_of(on: Stack, outage: str, say: Say) -> None:
    run = Run(on, outage, f"make failover ARGS=\"-k '{outage}'\"", say)
    with run.load(pace=SLOW) as customers:
        stack.wait(lambda: customers.all_wrote_since(0), 60, "every client wrote")
        fault = run.history.fault("outage", outages.SUBJECTS[outage])
        with outages.OUTAGES[outage](on):
            outages.pause()
    fault.ended_s = fault.began_s + outages.OUTAGE_S
    assert broken_promises(run.conclude(SETTLED_WITHIN_S)) == {}
