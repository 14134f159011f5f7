"""Carries out the steps of `Fulfilment` for many orders at once, with one statement for a set.

Only the usual steps are done here. An order that needs anything else (a refund, an unexpected
answer, an error) leaves its set. It is then handled singly from its current status, so it never
delays the others.

One thread decides everything. Orders that wait for the same statement share it. The statement runs
on a second thread. Meanwhile the first one begins calls to Inventory and Payment and takes their
answers. It does not wait for slow calls. So two sets are under way: while one has a statement, the
other waits for its calls.
"""

import contextlib
import functools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import structlog

from orders.database.progress import Advance, ProgressSets, Reservation, Settlement, Work
from orders.domain.lifecycle import Status
from orders.domain.order import Order
from orders.errors import OrdersError, Permanent, Unavailable
from orders.messaging.sets import Member, Source
from orders.telemetry import context, tracing
from orders.telemetry.metrics import exemplar
from orders.upstream.inventory import OutOfStock, ReservationStatus
from orders.upstream.parallel import CallResult
from orders.upstream.payment import Captured, Declined
from orders.upstream.transport import Call
from orders.watch import Watch
from orders.worker import steps
from orders.worker.fulfilment import log_if_stalled
from orders.worker.metrics import ORDER_PROCESSING
from orders.worker.steps import Move, is_open, report

# How long a statement waits for the calls that began in its turn, so that their orders share it.
# Orders of slower calls take a later statement.
_GATHER_S: Final = 0.01
# One set waits for its calls while the other one has the statement. A third would only wait.
_SETS: Final = 2
# As in Fulfilment: if an order needs more, other processes keep changing it.
_ROUNDS: Final = 20
_log = structlog.get_logger()


class Calls(Protocol):
    """Calls to Inventory and Payment under way; see `ParallelCalls`."""

    fresh: int

    def begin(self, token: Any, upstream: Any, call: Call[Any], run: Callable[..., Any]) -> None:
        """Send a call; `wait` returns its answer with `token`."""

    def wait(self, timeout_s: float | None) -> "list[CallResult[Any]]":
        """Return the calls that ended."""

    def wake(self) -> None:
        """Make `wait` return at once. Thread-safe."""

    def new_turn(self) -> None:
        """Count calls from now on in `fresh`."""

    def close(self) -> None:
        """Abandon the calls under way."""


class OrderCalls(Protocol):
    """Begins the calls of an order, with the contents of its `work`."""

    def reserve(self, task: "Task") -> None:
        """Ask Inventory for the order's units."""

    def capture(self, task: "Task") -> None:
        """Have Payment take the money."""

    def find(self, task: "Task") -> None:
        """Ask Payment for the outcome of the attempt."""

    def commit(self, task: "Task") -> None:
        """Make the reservation final."""

    def release(self, task: "Task") -> None:
        """Give the units back."""


class SetPorts(msgspec.Struct, frozen=True):
    """The dependencies of `SetFulfilment`; `update_cache` updates the cache with new versions."""

    progress: ProgressSets
    calls: Calls
    order_calls: OrderCalls
    update_cache: Callable[[Sequence[Order]], None]


class Task:
    """An order of a set: its message, and its state as far as it was read."""

    __slots__ = ("began_s", "left_at", "member", "rounds", "work")

    def __init__(self, member: Member) -> None:
        self.member = member
        self.work: Work = None  # type: ignore[assignment] # set before its first use
        self.rounds = 0
        self.left_at = 0  # its version when a statement left it out
        self.began_s = time.monotonic()

    @property
    def order_id(self) -> int:
        """The order that the message is about."""
        return self.member.message.body.order_id


class _Statement(NamedTuple):
    """A statement about some orders: `run` on the second thread, `conclude` on the first."""

    tasks: Sequence[Task]
    run: Callable[[], Any]
    conclude: Callable[[Any], None]
    loads: bool = False  # the next step of its orders is a call


class _SecondThread:
    """A daemon thread that runs functions one after another.

    One thread for all: starting one for each statement takes 0.1 ms, and 14 ms on a busy machine.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._asked: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = (
            queue.SimpleQueue()
        )
        threading.Thread(target=self._run, name="set-statements", daemon=True).start()

    def run(self, function: Callable[[], Any]) -> "Future[Any]":
        """Run a function; `wake` is called when it has ended."""
        future: Future[Any] = Future()
        self._asked.put((function, future))
        return future

    def close(self) -> None:
        """Let the thread end after its current function."""
        self._asked.put(None)

    def _run(self) -> None:
        for function, future in iter(self._asked.get, None):
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 raised in the thread that waits
                future.set_exception(error)
            self._wake()


class SetFulfilment:
    """Handles the sets of order-processing. A set, or a statement, has at most `size` orders."""

    def __init__(self, ports: SetPorts, size: int, watch: Watch) -> None:
        self._ports, self._size, self._watch = ports, size, watch
        self._forget()

    def _forget(self) -> None:
        self._in_hand: dict[int, Task] = {}
        self._later: list[Member] = []  # messages about an order that has a task already
        # The orders that wait for each statement.
        self._loads: list[tuple[Task, None]] = []
        self._moves: list[tuple[Task, Move]] = []
        self._settlements: list[tuple[Task, Reservation]] = []
        self._running: tuple[_Statement, Future[Any]] | None = None
        self._gather_until_s = 0.0

    def wake(self) -> None:
        """Look for messages that arrived, or for the end. Thread-safe."""
        self._ports.calls.wake()

    def work(self, source: Source) -> None:
        """Work on the messages that arrive until the source is closed."""
        self._forget()
        self._source = source
        with contextlib.closing(_SecondThread(self._ports.calls.wake)) as self._beside:
            while not source.closed:
                self._take_answers(self._ports.calls.wait(None if not source.waiting else 0))
                if source.waiting:
                    with self._watch.in_hand():
                        self._pursue()
        self._ports.calls.close()

    def _pursue(self) -> None:
        """Take turns until no order is left."""
        while not self._source.closed:
            self._watch.step()
            self._turn()
            if not (self._in_hand or self._later or self._source.waiting):
                return

    def _turn(self) -> None:
        """Take new messages, begin a statement if enough orders wait for it, and take answers."""
        members, self._later = self._later, []
        for member in members:
            self._take(member)
        for member in self._source.take(self._room()):
            self._take(member)
        if self._running is None and self._is_worth_a_statement():
            self._begin(self._statement())
        self._take_answers(self._ports.calls.wait(self._patience_s()))
        if self._running is not None:
            self._end(*self._running)

    def _is_worth_a_statement(self) -> bool:
        """Return whether half a set waits for one statement, or an order has waited long enough."""
        longest = max(map(len, self._queues()))
        is_due = self._ports.calls.fresh <= 0 or time.monotonic() >= self._gather_until_s
        return 2 * longest >= self._size or (longest > 0 and is_due)

    def _patience_s(self) -> float | None:
        """Return how long to wait for answers or the end of a statement; None: without limit."""
        if self._running is not None:
            return None
        if any(self._queues()):
            return max(0.0, self._gather_until_s - time.monotonic())
        has_new = bool(self._source.waiting and self._room()) or any(
            member.message.body.order_id not in self._in_hand for member in self._later
        )
        return 0 if has_new or not self._in_hand else None

    def _queues(self) -> tuple[list[Any], ...]:
        return self._loads, self._moves, self._settlements

    def _room(self) -> int:
        """Return how many more orders may be taken.

        At most a set of orders may wait for calls, including those that are being loaded. With slow
        upstreams more would find no connection in time. So the second set is taken while the first
        one gets its answers.
        """
        tasks = len(self._in_hand)
        idle_tasks = len(self._moves) + len(self._settlements)
        if self._running is not None and not self._running[0].loads:
            idle_tasks += len(self._running[0].tasks)
        calls = tasks - idle_tasks
        return max(0, min(_SETS * self._size - tasks - len(self._later), self._size - calls))

    def _take(self, member: Member) -> None:
        order_id = member.message.body.order_id
        if order_id in self._in_hand:
            self._later.append(member)
            return
        task = self._in_hand[order_id] = Task(member)
        self._loads.append((task, None))

    # -- statements -----------------------------------------------------------------------

    def _statement(self) -> _Statement | None:
        """Return the statement that most orders wait for, for at most a set of them."""
        kinds: tuple[Callable[[Any], _Statement], ...] = (self._load, self._advance, self._settle)
        kind, waiting = max(zip(kinds, self._queues(), strict=True), key=lambda pair: len(pair[1]))
        entries, waiting[: self._size] = waiting[: self._size], []
        current = [entry for entry in entries if self._has(entry[0])]
        with self._leaving_on_error([task for task, _ in current]):
            return kind(current) if current else None
        return None

    def _begin(self, statement: _Statement | None) -> None:
        if statement is None:
            return
        self._ports.calls.new_turn()
        if len(self._in_hand) == 1:  # with a single order, a second thread gains nothing
            with self._leaving_on_error(statement.tasks):
                statement.conclude(statement.run())
            return
        self._running = statement, self._beside.run(statement.run)

    def _end(self, statement: _Statement, future: "Future[Any]") -> None:
        """Conclude a statement if it has ended."""
        if not future.done():
            return
        self._running = None
        self._ports.calls.new_turn()
        with self._leaving_on_error(statement.tasks):
            statement.conclude(future.result())
        self._gather_until_s = time.monotonic() + _GATHER_S

    def _load(self, entries: Sequence[tuple[Task, None]]) -> _Statement:
        tasks = [task for task, _ in entries]
        messages = {task.order_id: task.member.message.message_id for task in tasks}

        def run() -> dict[int, Work]:
            works = self._ports.progress.load(messages)
            # Another process may have died between its commit and its write to the cache.
            orders = [work.order for work in works.values() if work.order.version > 1]
            if orders:
                self._ports.update_cache(orders)
            return works

        return _Statement(tasks, run, functools.partial(self._conclude_load, tasks), loads=True)

    def _conclude_load(self, tasks: Sequence[Task], works: dict[int, Work]) -> None:
        for task in tasks:
            work = works.get(task.order_id)
            # Unchanged, so another session locks it: single handling waits for the lock.
            if work is None or (work.order.version == task.left_at and not work.processed):
                self._leave(task)
            else:
                task.work = work
                self._decide(task)
        self._finish([task for task in tasks if task.work and task.work.processed])

    def _advance(self, entries: Sequence[tuple[Task, Move]]) -> _Statement:
        tasks = [task for task, _ in entries]
        advances = [
            Advance(
                task.work,
                steps.transition_of(task.work, move.event),
                move.step,
                task.member.run(context.current),
            )
            for task, move in entries
        ]

        def run() -> dict[int, Order]:
            with contextlib.ExitStack() as spans:
                for task, advance in zip(tasks, advances, strict=True):
                    if advance.context.sampled:
                        spans.push(_span(task, advance))
                orders = self._ports.progress.advance(advances)
            if orders:
                self._ports.update_cache(list(orders.values()))
            return orders

        return _Statement(tasks, run, functools.partial(self._conclude_advance, entries))

    def _conclude_advance(
        self, entries: Sequence[tuple[Task, Move]], orders: dict[int, Order]
    ) -> None:
        for task, move in entries:
            order = orders.get(task.order_id)
            if order is None:
                self._again(task)
                continue
            previous_status = task.work.order.status
            task.work = task.work.after(order, move.step)
            task.member.run(report, previous_status, order)
            self._decide(task)

    def _settle(self, entries: Sequence[tuple[Task, Reservation]]) -> _Statement:
        tasks = [task for task, _ in entries]
        settlements = [
            Settlement(task.work, reservation, task.member.message.message_id)
            for task, reservation in entries
        ]
        run = functools.partial(self._ports.progress.settle, settlements)
        return _Statement(tasks, run, functools.partial(self._conclude_settle, tasks))

    def _conclude_settle(self, tasks: Sequence[Task], order_ids: set[int]) -> None:
        for task in tasks:
            if task.order_id not in order_ids:
                self._again(task)
        self._finish([task for task in tasks if task.order_id in order_ids])

    def _has(self, task: Task) -> bool:
        return self._in_hand.get(task.order_id) is task

    @contextlib.contextmanager
    def _leaving_on_error(self, tasks: Iterable[Task]) -> Iterator[None]:
        """If anything fails for all of these orders, have them handled singly."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 single handling finds what is wrong
            if isinstance(error, OrdersError):
                _log.warning("set.fell_apart", error=str(error))
            else:
                _log.exception("set.fell_apart")
            for task in tasks:
                if self._has(task):
                    self._leave(task)

    # -- decisions ------------------------------------------------------------------------

    def _decide(self, task: Task) -> None:
        """Begin the next step of an order, by its status."""
        work, order_calls = task.work, self._ports.order_calls
        if work.processed:
            return
        match work.order.status:
            case Status.PENDING:
                order_calls.reserve(task)
            case Status.RESERVED:
                self._moves.append((task, steps.start_charge(work)))
            case Status.CHARGING if work.attempt_id is not None:
                if work.attempt_may_be_known:
                    order_calls.find(task)
                else:
                    order_calls.capture(task)
            case Status.COMPLETED if _holds(work):
                order_calls.commit(task)
            case Status.FAILED if _holds(work):
                order_calls.release(task)
            case _:
                self._leave(task)

    def _take_answers(self, answers: "Sequence[CallResult[Task]]") -> None:
        for task, result, error in answers:
            if not self._has(task):
                continue  # it left meanwhile
            with self._leaving_on_error([task]):
                if error is not None:
                    self._handle_error(task, error)
                else:
                    self._conclude(task, result)

    def _conclude(self, task: Task, result: object) -> None:
        """Queue what follows from an answer; the next statement commits it."""
        work = task.work
        match work.order.status, result:
            case Status.PENDING, ReservationStatus() | OutOfStock():
                self._moves.append((task, steps.decide_after_reserve(work, result)))
            case Status.CHARGING, Captured() | Declined():
                self._moves.append((task, steps.decide_after_capture(work, result)))
            case Status.CHARGING, None:  # Payment has not received it so far
                task.work = msgspec.structs.replace(work, attempt_may_be_known=False)
                self._decide(task)
            case Status.COMPLETED, ReservationStatus.COMMITTED:
                self._settlements.append((task, Reservation.COMMITTED))
            case Status.FAILED, ReservationStatus.RELEASED | ReservationStatus.UNKNOWN:
                self._settlements.append((task, Reservation.RELEASED))
            case _:
                self._leave(task)

    # -- the end --------------------------------------------------------------------------

    def _again(self, task: Task) -> None:
        """Load an order again that another process changed or locks."""
        task.rounds, task.left_at = task.rounds + 1, task.work.order.version
        if task.rounds < _ROUNDS:
            self._loads.append((task, None))
        else:
            self._leave(task)

    def _finish(self, tasks: Sequence[Task]) -> None:
        if not tasks:
            return
        for task in tasks:
            del self._in_hand[task.order_id]
            task.member.run(_observe, task)
        self._source.done([task.member for task in tasks])

    def _handle_error(self, task: Task, error: Exception) -> None:
        # Other errors say nothing about the order: perhaps the call only found no connection.
        is_permanent = isinstance(error, Permanent)
        if is_permanent and task.member.run(log_if_stalled, task.member.message, error):
            self._finish([task])
            return
        # An outage that would pause the queue may end before the message is handled singly. So that
        # handling has to find it itself.
        pauses = isinstance(error, Unavailable) and error.pause
        expected = isinstance(error, Unavailable | Permanent) and not pauses
        self._leave(task, error if expected and isinstance(error, OrdersError) else None)

    def _leave(self, task: Task, error: OrdersError | None = None) -> None:
        del self._in_hand[task.order_id]
        if error is not None:
            task.member.run(_observe, task)
        self._source.leave(task.member, error)


def _holds(work: Work) -> bool:
    return work.refund is None and is_open(work) and work.reservation is Reservation.HELD


def _span(task: Task, advance: Advance) -> Any:
    """Begin an order's span for a statement; return the function that ends it."""
    attributes = {"order.id": task.order_id, "order.status": advance.transition.to}
    block = task.member.run(tracing.span, "AdvanceOrder", attributes)
    task.member.run(block.__enter__)

    def end(*exc_info: object) -> None:
        task.member.run(block.__exit__, *exc_info)

    return end


def _observe(task: Task) -> None:
    ORDER_PROCESSING.observe(time.monotonic() - task.began_s, exemplar())
