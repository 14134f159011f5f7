"""Orders handled as a set, on the caller's thread: the worker's own sets without a broker."""

import contextvars
import threading
from collections.abc import Callable, Sequence
from typing import Any

from orders.database.progress import ProgressSets
from orders.domain.order import Order
from orders.errors import OrdersError
from orders.messaging.envelope import Message
from orders.messaging.sets import Member
from orders.telemetry import context
from orders.upstream.parallel import CallResult
from orders.watch import Watch
from orders.worker.sets import Calls, OrderCalls, SetFulfilment, SetPorts, Task
from orders.worker.steps import target

SIZE = 50


class Messages:
    """Some messages, which a handler of sets works on until each is done with or has left."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._left = [self._member(message) for message in messages]
        self._open = len(messages)
        self.done_with: list[Message] = []
        self.refused: list[tuple[Message, OrdersError | None]] = []

    @staticmethod
    def _member(message: Message) -> Member:
        run = contextvars.copy_context().run
        run(context.enter, message.context)
        return Member(None, message, run)

    @property
    def closed(self) -> bool:
        return self._open == 0

    @property
    def waiting(self) -> bool:
        return bool(self._left)

    def take(self, limit: int) -> list[Member]:
        task, self._left = self._left[:limit], self._left[limit:]
        return task

    def done(self, members: Sequence[Member]) -> None:
        self._open -= len(members)
        self.done_with += [member.message for member in members]

    def leave(self, member: Member, error: OrdersError | None) -> None:
        self._open -= 1
        self.refused.append((member.message, error))


class DirectCalls:
    """Calls that end while they begin: their answers only wait to be fetched."""

    def __init__(self) -> None:
        self.fresh = 0
        self.ended: list[CallResult[Any]] = []
        self._rung = threading.Event()

    def begin(self, *_: object) -> None:
        raise AssertionError("these calls are made by DirectOrderCalls")

    def wait(self, timeout_s: float | None) -> list[CallResult[Any]]:
        if not self.ended:
            self._rung.wait(timeout_s)
            self._rung.clear()
        ended, self.ended = self.ended, []
        return ended

    def wake(self) -> None:
        self._rung.set()

    def new_turn(self) -> None: ...

    def close(self) -> None: ...


class DirectOrderCalls:
    """Asks with the methods of Inventory and Payment, one call after another."""

    def __init__(self, inventory: Any, payment: Any) -> None:
        self.calls = DirectCalls()
        self._inventory, self._payment = inventory, payment

    def reserve(self, task: Task) -> None:
        order = task.work.order
        self._ask(
            task, self._inventory.reserve, target(task.work), order.product_id, order.quantity
        )

    def capture(self, task: Task) -> None:
        order, key = task.work.order, str(task.work.attempt_id)
        method = task.work.payment_method
        self._ask(task, self._payment.capture, key, order.id, order.total, method)

    def find(self, task: Task) -> None:
        order, key = task.work.order, str(task.work.attempt_id)
        self._ask(task, self._payment.find, key, order.id, order.total)

    def commit(self, task: Task) -> None:
        self._ask(task, self._inventory.commit, target(task.work))

    def release(self, task: Task) -> None:
        self._ask(task, self._inventory.release, target(task.work))

    def _ask(self, task: Task, method: Callable[..., Any], *arguments: object) -> None:
        try:
            answered = CallResult(task, task.member.run(method, *arguments), None)
        except Exception as error:  # noqa: BLE001 it is an answer here
            answered = CallResult(task, None, error)
        self.calls.ended.append(answered)


def work_on(
    messages: Sequence[Message],
    progress: ProgressSets,
    calls: Calls,
    order_calls: OrderCalls,
    update_cache: Callable[[Sequence[Order]], None],
) -> Messages:
    """Work on messages as sets; return what became of each."""
    source = Messages(messages)
    ports = SetPorts(progress, calls, order_calls, update_cache)
    SetFulfilment(ports, SIZE, Watch("test")).work(source)
    return source


def handle_by_itself(
    refusals: Sequence[tuple[Message, OrdersError | None]], handle: Callable[[Message], None]
) -> None:
    """Handle the messages that left a set, as the consumer does."""
    for message, error in refusals:
        if error is not None:
            raise error
        with context.using(message.context):
            handle(message)
