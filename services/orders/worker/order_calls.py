"""The calls to Inventory and Payment that an order in a set needs."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from orders.database.progress import ProgressSets
from orders.domain.order import Order
from orders.upstream import inventory, payment
from orders.upstream.http import Upstream
from orders.upstream.parallel import ParallelCalls
from orders.watch import Watch
from orders.worker.sets import SetFulfilment, SetPorts, Task
from orders.worker.steps import target


class UpstreamOrderCalls:
    """Begins calls of the two upstreams."""

    def __init__(self, calls: ParallelCalls[Task], stock: Upstream, money: Upstream) -> None:
        self._calls, self._stock, self._money = calls, stock, money

    def reserve(self, task: Task) -> None:
        """Ask Inventory for the order's units."""
        order = task.work.order
        call = inventory.reserve_call(target(task.work), order.product_id, order.quantity)
        self._calls.begin(task, self._stock, call, task.member.run)

    def capture(self, task: Task) -> None:
        """Have Payment take the money."""
        work = task.work
        call = payment.capture_call(
            str(work.attempt_id), work.order.id, work.order.total, work.payment_method
        )
        self._calls.begin(task, self._money, call, task.member.run)

    def find(self, task: Task) -> None:
        """Ask Payment for the outcome of the attempt."""
        work = task.work
        call = payment.find_call(str(work.attempt_id), work.order.id, work.order.total)
        self._calls.begin(task, self._money, call, task.member.run)

    def commit(self, task: Task) -> None:
        """Make the reservation final."""
        call = inventory.commit_call(target(task.work))
        self._calls.begin(task, self._stock, call, task.member.run)

    def release(self, task: Task) -> None:
        """Give the units back."""
        call = inventory.release_call(target(task.work))
        self._calls.begin(task, self._stock, call, task.member.run)


class Upstreams(NamedTuple):
    """The upstreams that sets call, each with at most `width` calls at once."""

    stock: Upstream
    money: Upstream
    width: int


def set_fulfilment(
    progress: ProgressSets,
    upstreams: Upstreams,
    update_cache: Callable[[Sequence[Order]], None],
    *,
    size: int,
    watch: Watch,
) -> SetFulfilment:
    """Return the handler of sets of up to `size` orders."""
    calls: ParallelCalls[Task] = ParallelCalls(upstreams.width)
    order_calls = UpstreamOrderCalls(calls, upstreams.stock, upstreams.money)
    return SetFulfilment(SetPorts(progress, calls, order_calls, update_cache), size, watch)
