"""Wait until a run has come to rest, as far as it does."""

from failover.evidence import Evidence, gather
from failover.history import History
from failover.stack import NotInTime, Stack, wait
from orders.domain.lifecycle import TERMINAL


def settled(stack: Stack, history: History, within_s: float) -> tuple[Evidence, float]:
    """Wait until every order ended and was announced; return the state and the time it took.

    After the longest time it returns the state, too: the checker names what is wrong.
    """
    marks = {entry.mark for entry in history.snapshot() if entry.mark is not None}
    last: list[Evidence] = []

    def at_rest() -> bool:
        last[:] = [gather(stack)]
        own_rows = [row for row in last[0].orders if row.mark in marks]
        notified = {notice.order_id for notice in last[0].notified}
        reservations = [
            item for item in last[0].stock if item.mark in marks and item.status == "reserved"
        ]
        is_over = all(row.status in TERMINAL and row.id in notified for row in own_rows)
        return is_over and not reservations and not last[0].outbox

    try:
        took_s = wait(at_rest, within_s, "every order ended and told", every_s=0.5)
        last[:] = [gather(stack)]  # the books of one moment: those before were read one by one
    except NotInTime:
        took_s = within_s
    return last[0], took_s
