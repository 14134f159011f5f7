"""Transitions of an order: commit, then update the cache and send notifications."""

from collections.abc import Callable
from typing import Final

import structlog

from orders.database.progress import Progress, Step, Work
from orders.domain.lifecycle import ON_THE_WAY, TERMINAL, Event, Status
from orders.domain.order import Order
from orders.errors import Permanent
from orders.telemetry import context, tracing
from orders.telemetry.metrics import ORDER_COMPLETION, exemplar
from orders.worker import decisions
from orders.worker.metrics import ORDER_TRANSITIONS

_log: Final = structlog.get_logger()


class Transitions:
    """Commits transitions; `changed` updates the cache with a new version."""

    def __init__(self, progress: Progress, changed: Callable[[Order], None]) -> None:
        self._progress, self._changed = progress, changed

    def commit(self, work: Work, event: Event, step: Step) -> Work | None:
        """Commit a transition with all that belongs to it; None if others moved the order."""
        order = work.order
        change, ids = decisions.change(work, event), context.current()
        if ids is None:
            raise Permanent("a transition outside of any work", reason="no_transition")
        with tracing.span("AdvanceOrder", {"order.id": order.id, "order.status": change.to}):
            moved = self._progress.advance(work, change, step, ids)
        if moved is None:
            return None
        self._changed(moved)
        report(order.status, moved)
        return work.after(moved, step)


def report(before: Status, order: Order) -> None:
    """Log and count a committed transition."""
    reason = {"reason": order.status_reason} if order.status_reason else {}
    _log.info("order.advanced", orderId=order.id, status=order.status, **reason)
    ORDER_TRANSITIONS.labels(order.status).inc()
    # A refund long after the end is not the time from the 202 to the end.
    if before in ON_THE_WAY and order.status in TERMINAL:
        seconds = (order.updated_at - order.created_at).total_seconds()
        ORDER_COMPLETION.labels(order.status).observe(seconds, exemplar())
