"""Promotions under load: the primary is killed, frozen or cut off, a standby takes over."""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from typing import Final

from failover.clients import FIRST_MARK, FIRST_USER, Crowd, Pace
from failover.history import Fault, History
from failover.stack import NotInTime, Stack, wait

# A failover manager needs a moment to be sure; those in use take longer than this by default.
DETECTED_AFTER_S: Final = float(os.environ.get("FAILOVER_DETECTED_S", "2"))
_WRITTEN_AGAIN_WITHIN_S: Final = 60.0
_marks = itertools.count(FIRST_MARK)
_users = itertools.count(FIRST_USER, 100)

Say = Callable[[str], None]


def kill(stack: Stack) -> None:
    """Kill the primary; its kernel closes all connections."""
    stack.databases.leader.program.kill()


def freeze(stack: Stack) -> None:
    """Stop the primary's processes; its kernel still accepts connections and bytes."""
    stack.databases.leader.program.pause()


def cut(stack: Stack) -> None:
    """Drop all packets to the primary, which keeps running."""
    stack.databases.primary.freeze()


FAULTS: Final = {"kill -9": kill, "SIGSTOP": freeze, "cut": cut}


def crowd(stack: Stack, history: History, size: int, pace: Pace | None = None) -> Crowd:
    """Make customers without earlier orders."""
    return Crowd(stack.door.port, history, size, _marks, next(_users), pace)


def promote(stack: Stack, history: History, kind: str) -> Fault:
    """Break the primary, promote a standby, move the address; the old primary is left as it is."""
    fault = history.fault(kind, "postgres")
    FAULTS[kind](stack)
    time.sleep(DETECTED_AFTER_S)
    take_over(stack, fault)
    return fault


def take_over(stack: Stack, fault: Fault) -> None:
    """Promote the best standby and redirect clients to it, as docs/failover.md describes.

    Where commits may be lost, `orders after-promotion` runs before any client comes. Where they
    cannot, the elected worker's own run is soon enough.
    """
    fault.note = stack.databases.promote().name
    fault.promoted_s = time.time()
    if not stack.databases.synchronous:
        stack.orders("after-promotion", tries=10)  # a server just promoted may answer late
    stack.databases.move()
    fault.moved_s = time.time()


def promote_in_turn(
    stack: Stack, history: History, customers: Crowd, count: int, say: Say
) -> Iterator[Fault]:
    """Promote `count` times, each time from a whole set of servers and under load."""
    for number, kind in zip(range(count), itertools.cycle(FAULTS), strict=False):
        began_s = time.time()
        _written(customers, began_s)
        fault = promote(stack, history, kind)
        took_s = _written(customers, fault.promoted_s)
        old = next(node for node in stack.databases.nodes if node.name == fault.note)
        stack.run(lambda: stack.databases.rebuild(old))  # noqa: B023 run before the next turn
        stack.databases.move()
        fault.ended_s = time.time()
        say(
            f"promotion {number + 1}/{count} by {kind}: all clients wrote again after {took_s},"
            f" whole after {fault.ended_s - fault.began_s:.1f} s by {old.rejoined_by}"
        )
        yield fault


def _written(customers: Crowd, since_s: float) -> str:
    """Wait until every client has written again; the run continues if they cannot."""
    try:
        took_s = wait(lambda: customers.all_wrote_since(since_s), _WRITTEN_AGAIN_WITHIN_S, "writes")
    except NotInTime:
        wrote = len(customers.writers_since(since_s))
        return f"more than {_WRITTEN_AGAIN_WITHIN_S:g} s ({wrote} of {len(customers.customers)})"
    return f"{took_s:.1f} s"
