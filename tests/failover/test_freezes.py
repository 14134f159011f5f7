"""A process that is frozen for a minute delays no other."""

from collections.abc import Callable, Iterator

import pytest

from failover import freezes, stack
from failover.clients import Pace
from failover.evidence import purge_dead_letters
from failover.runs import Run, broken_promises
from failover.stack import Stack

Say = Callable[[str], None]
SETTLED_WITHIN_S = 120.0

pytestmark = pytest.mark.failover


@pytest.fixture(autouse=True)
def nothing_left_behind(on: Stack) -> Iterator[None]:
    """Empty the dead-letter queues after each test."""
    yield
    purge_dead_letters(on)


@pytest.fixture(scope="module")
def on() -> Iterator[Stack]:
    with stack.running(standbys=1, synchronous=False) as running:
        yield running


def seconds(value: float | None) -> str:
    return "(never)" if value is None else f"{value:.1f} s"


@pytest.mark.parametrize("kind", freezes.FREEZES)
def test_work_goes_on_while_a_process_is_frozen(on: Stack, kind: str, say: Say) -> None:
    run = Run(on, f"frozen {kind}", f"make failover ARGS=\"-k 'frozen and {kind}'\"", say)
    with run.load(pace=Pace(answer_within_s=10)) as customers:
        stack.wait(lambda: customers.all_wrote_since(0), 60, "every client wrote")
        outcome = freezes.freeze(on, run.history, kind)
    violations = run.conclude(SETTLED_WITHIN_S)
    assert run.record is not None
    marks = {row.id: row.mark for row in run.record.evidence.orders}
    notified_s = {marks[notice.order_id]: notice.at_s for notice in run.record.evidence.notified}
    freezes.judge(run.history, notified_s, outcome)
    say(
        f"  frozen {kind}: work goes on for all after {seconds(outcome.goes_on_s)},"
        f" {len(outcome.late)} orders told late, livez fails after {seconds(outcome.probe_fails_s)}"
    )
    assert outcome.survives
    assert broken_promises(violations) == {}
