"""A primary that dies, freezes or is cut off loses no accepted order; and the checker can tell.

The short run is part of `make test`; the long one, with 30 promotions, of `make failover`.
"""

import os
import time
from collections.abc import Callable

import pytest

from failover import page, promotions, stack
from failover.runs import Run, broken_promises
from failover.stack import Stack, wait

Say = Callable[[str], None]
PROMOTIONS = int(os.environ.get("FAILOVER_PROMOTIONS", "30"))
FEW, MANY = 8, 60  # orders lost by a control; PostgreSQL issues ids again beyond 32
SETTLED_WITHIN_S = 150.0


def promoted(on: Stack, count: int, repeat: str, say: Say) -> Run:
    """Promote under load and conclude; no promise may be broken, no process have been replaced."""
    run, pids_before = Run(on, f"{count} promotions", repeat, say), on.pids()
    with run.load() as customers:
        for _ in promotions.promote_in_turn(on, run.history, customers, count, say):
            pass
    violations = run.conclude(SETTLED_WITHIN_S)
    assert broken_promises(violations) == {}
    assert on.pids() == pids_before, "a process ended"
    return run


def lose_orders(on: Stack, count: int, repeat: str, say: Say) -> Run:
    """Promote a standby that was cut off, with commits that do not wait for it."""
    run = Run(on, "control, orders lost on purpose", repeat, say)
    on.databases.replicate_asynchronously()
    with run.load() as customers:
        wait(lambda: customers.all_wrote_since(0), 60, "every client wrote")
        on.databases.cut_replication()
        cut_s = time.time()
        wait(lambda: accepted_since(run, cut_s) >= count, 60, "orders that will be lost")
        fault = promotions.promote(on, run.history, "kill -9")
        wait(lambda: customers.all_wrote_since(fault.promoted_s), 90, "every client wrote again")
        fault.ended_s = time.time()
    run.conclude(within_s=8)
    return run


def accepted_since(run: Run, moment_s: float) -> int:
    """Count the orders accepted after a moment."""
    return sum(
        entry.status == 202 and entry.action == "place" and entry.sent_s > moment_s
        for entry in run.history.snapshot()
    )


def assert_loss_reported(run: Run, count: int) -> None:
    """Expect the loss in the verdicts: a checker that cannot see it shows nothing."""
    verdicts = {verdict.name: verdict for verdict in run.verdicts}
    assert len(verdicts["lost"].violations) >= count // 2, "the checker does not see lost orders"
    for name in ("ids", "twice", "contents", "foreign"):
        assert verdicts[name].holds, verdicts[name].violations[0].text


def test_no_order_is_lost_by_three_promotions_and_the_control_loses_some(say: Say) -> None:
    repeat = "make test ARGS=tests/failover"
    with stack.running() as on:
        promoted(on, 3, repeat, say)
        assert_loss_reported(lose_orders(on, FEW, repeat, say), FEW)


@pytest.mark.failover
def test_no_order_is_lost_by_many_promotions_in_a_row(say: Say) -> None:
    repeat = f"FAILOVER_PROMOTIONS={PROMOTIONS} make failover ARGS='-k many_promotions'"
    with stack.running({"ORDERS_DATABASE_DURABILITY": "synchronous"}) as on:
        run = promoted(on, PROMOTIONS, repeat, say)
    assert run.record is not None
    waits = [everybody for *_, everybody in page.gaps(run.record)]
    if stack.busy():
        say(f"  the goal of {page.GAP_GOAL_S:g} s is not judged: load {stack.load_now()}")
    else:
        assert page.percentile(waits, 0.95) <= page.GAP_GOAL_S


@pytest.mark.failover
def test_asynchronous_replication_loses_orders_and_the_checker_reports_it(say: Say) -> None:
    with stack.running() as on:
        run = lose_orders(on, MANY, "make failover ARGS='-k asynchronous_replication'", say)
    assert_loss_reported(run, MANY)
