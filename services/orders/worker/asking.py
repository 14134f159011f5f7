"""The calls to Inventory and Payment that an order in a set needs."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from orders.database.progress_sets import ProgressSets
from orders.domain.order import Order
from orders.upstream import inventory, payment
from orders.upstream.http import Upstream
from orders.upstream.parallel import ParallelCalls
from orders.watch import Watch
from orders.worker.decisions import target
from orders.worker.sets import SetFulfilment, SetPorts, Taken


class UpstreamAsking:
    """Begins calls of the two upstreams."""

    def __init__(self, calls: ParallelCalls[Taken], stock: Upstream, money: Upstream) -> None:
        self._calls, self._stock, self._money = calls, stock, money

    def reserve(self, taken: Taken) -> None:
        """Ask Inventory for the order's units."""
        order = taken.work.order
        call = inventory.reserving(target(taken.work), order.product_id, order.quantity)
        self._calls.begin(taken, self._stock, call, taken.member.run)

    def capture(self, taken: Taken) -> None:
        """Have Payment take the money."""
        work = taken.work
        call = payment.capturing(
            str(work.attempt_id), work.order.id, work.order.total, work.payment_method
        )
        self._calls.begin(taken, self._money, call, taken.member.run)

    def find(self, taken: Taken) -> None:
        """Ask Payment what became of the attempt."""
        work = taken.work
        call = payment.finding(str(work.attempt_id), work.order.id, work.order.total)
        self._calls.begin(taken, self._money, call, taken.member.run)

    def commit(self, taken: Taken) -> None:
        """Make the reservation final."""
        call = inventory.committing(target(taken.work))
        self._calls.begin(taken, self._stock, call, taken.member.run)

    def release(self, taken: Taken) -> None:
        """Give the units back."""
        call = inventory.releasing(target(taken.work))
        self._calls.begin(taken, self._stock, call, taken.member.run)


class Upstreams(NamedTuple):
    """Where sets ask; `width` calls to each are in flight at once."""

    stock: Upstream
    money: Upstream
    width: int


def crew(
    progress: ProgressSets,
    upstreams: Upstreams,
    changed: Callable[[Sequence[Order]], None],
    *,
    size: int,
    watch: Watch,
) -> SetFulfilment:
    """Return what works on sets of up to `size` orders."""
    calls: ParallelCalls[Taken] = ParallelCalls(upstreams.width)
    asking = UpstreamAsking(calls, upstreams.stock, upstreams.money)
    return SetFulfilment(SetPorts(progress, calls, asking, changed), size, watch)
