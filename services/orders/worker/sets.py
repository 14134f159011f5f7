"""Brings many orders to their ends at once: the steps of `Fulfilment`, a set in each statement.

Only what usually comes is done here. An order that needs anything else (a refund, an answer nobody
expects, an error) leaves, and is handled by itself, from how it stands then: it never holds up the
others. One thread does it all. In a turn, the orders that wait for the same statement share it;
calls to Inventory and Payment are under way meanwhile, and one that takes long is not waited for.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

import msgspec
import structlog

from orders.database.progress import Reservation, Work
from orders.database.progress_sets import Advance, ProgressSets, Settlement
from orders.domain.lifecycle import Status
from orders.domain.order import Order
from orders.errors import OrdersError, Permanent, Unavailable
from orders.messaging.sets import Member, Source
from orders.telemetry import context, tracing
from orders.telemetry.metrics import exemplar
from orders.upstream.inventory import OutOfStock, Standing
from orders.upstream.parallel import Answered
from orders.upstream.payment import Captured, Declined
from orders.upstream.transport import Call
from orders.watch import Watch
from orders.worker import decisions
from orders.worker.decisions import Move
from orders.worker.fulfilment import quiet
from orders.worker.metrics import ORDER_PROCESSING
from orders.worker.stock import is_open
from orders.worker.transitions import report

# How long a statement waits for calls that began with its turn, so that their orders share it. A
# call that takes longer finds a later statement.
_GATHER_S: Final = 0.01
# As in Fulfilment: others keep moving an order that needs more.
_ROUNDS: Final = 20
_log = structlog.get_logger()


class Calls(Protocol):
    """Calls to Inventory and Payment under way; see `ParallelCalls`."""

    fresh: int

    def begin(self, token: Any, upstream: Any, call: Call[Any], run: Callable[..., Any]) -> None:
        """Begin a call."""

    def wait(self, timeout_s: float | None) -> "list[Answered[Any]]":
        """Return the calls that ended."""

    def wake(self) -> None:
        """Let `wait` return."""

    def new_turn(self) -> None:
        """Count calls from now on in `fresh`."""

    def close(self) -> None:
        """Give up what is under way."""


class Asking(Protocol):
    """Begins the calls of an order: what each needs to say is in its work."""

    def reserve(self, taken: "Taken") -> None:
        """Ask Inventory for the order's units."""

    def capture(self, taken: "Taken") -> None:
        """Have Payment take the money."""

    def find(self, taken: "Taken") -> None:
        """Ask Payment what became of the attempt."""

    def commit(self, taken: "Taken") -> None:
        """Make the reservation final."""

    def release(self, taken: "Taken") -> None:
        """Give the units back."""


class SetPorts(msgspec.Struct, frozen=True):
    """What it works with; `changed` tells the cache of new versions."""

    progress: ProgressSets
    calls: Calls
    asking: Asking
    changed: Callable[[Sequence[Order]], None]


class Taken:
    """An order in hand."""

    __slots__ = ("began_s", "left_at", "member", "rounds", "work")

    def __init__(self, member: Member) -> None:
        self.member = member
        self.work: Work = None  # type: ignore[assignment] # loaded before anybody looks
        self.rounds = 0
        self.left_at = 0  # the version at which a statement left it out
        self.began_s = time.monotonic()

    @property
    def order_id(self) -> int:
        """The order that the message is about."""
        return self.member.message.body.order_id


class SetFulfilment:
    """The crew of order-processing. A set has at most `size` orders."""

    def __init__(self, ports: SetPorts, size: int, watch: Watch) -> None:
        self._ports, self._size, self._watch = ports, size, watch
        self._forget()

    def _forget(self) -> None:
        self._in_hand: dict[int, Taken] = {}
        self._later: list[Member] = []  # about an order that is in hand
        self._loads: list[Taken] = []
        self._moves: list[tuple[Taken, Move]] = []
        self._settlements: list[tuple[Taken, Reservation]] = []

    def wake(self) -> None:
        """Look for messages that arrived, or for the end. Thread-safe."""
        self._ports.calls.wake()

    def work(self, source: Source) -> None:
        """Work on what arrives until the source is closed."""
        self._forget()
        self._source = source
        while not source.closed:
            self._answered(self._ports.calls.wait(None if not source.waiting else 0))
            if source.waiting:
                with self._watch.in_hand():
                    self._pursue()
        self._ports.calls.close()

    def _pursue(self) -> None:
        """Take turns until no order is in hand."""
        while not self._source.closed:
            self._watch.step()
            self._turn()
            if not (self._in_hand or self._later or self._source.waiting):
                return

    def _turn(self) -> None:
        """Take what arrived, run the statements that are waited for, then gather answers."""
        self._ports.calls.new_turn()
        later, self._later = self._later, []
        for member in later:
            self._take(member)
        for member in self._source.take(self._room()):
            self._take(member)
        self._load()
        self._advance()
        self._settle()
        self._gather()

    def _gather(self) -> None:
        calls, until_s = self._ports.calls, time.monotonic() + _GATHER_S
        while calls.fresh > 0 and (left_s := until_s - time.monotonic()) > 0:
            self._answered(calls.wait(left_s))
        if self._in_hand and not self._has_work():
            self._answered(calls.wait(None))

    def _room(self) -> int:
        """Return how many more orders may be in hand: more would wait for connections in vain."""
        return max(0, self._size - len(self._in_hand) - len(self._later))

    def _has_work(self) -> bool:
        if self._loads or self._moves or self._settlements:
            return True
        if self._source.waiting and self._room():
            return True
        return any(one.message.body.order_id not in self._in_hand for one in self._later)

    def _take(self, member: Member) -> None:
        order_id = member.message.body.order_id
        if order_id in self._in_hand:
            self._later.append(member)
            return
        taken = self._in_hand[order_id] = Taken(member)
        self._loads.append(taken)

    # -- statements -----------------------------------------------------------------------

    def _load(self) -> None:
        loads, self._loads = [one for one in self._loads if self._has(one)], []
        for part in _parts(loads, self._size):
            messages = {taken.order_id: taken.member.message.message_id for taken in part}
            with self._falling_apart(part):
                works = self._ports.progress.load(messages)
                self._loaded(part, works)

    def _loaded(self, part: Sequence[Taken], works: dict[int, Work]) -> None:
        # Somebody may have died between a commit and the cache.
        changed = [work.order for work in works.values() if work.order.version > 1]
        if changed:
            self._ports.changed(changed)
        for taken in part:
            work = works.get(taken.order_id)
            # Where nobody moved it, somebody locks it: that is waited for elsewhere.
            if work is None or (work.order.version == taken.left_at and not work.processed):
                self._leave(taken)
            else:
                taken.work = work
                self._decide(taken)
        self._done([taken for taken in part if taken.work and taken.work.processed])

    def _advance(self) -> None:
        moves, self._moves = [one for one in self._moves if self._has(one[0])], []
        for part in _parts(moves, self._size):
            members = [taken for taken, _ in part]
            with self._falling_apart(members):
                self._advance_part(
                    [(taken, move, _advance_of(taken, move)) for taken, move in part]
                )

    def _advance_part(self, part: Sequence[tuple[Taken, Move, Advance]]) -> None:
        with contextlib.ExitStack() as spans:
            for taken, _, advance in part:
                if advance.context.sampled:
                    spans.push(_span(taken, advance))
            moved = self._ports.progress.advance([advance for _, _, advance in part])
        if moved:
            self._ports.changed(list(moved.values()))
        for taken, move, _ in part:
            order = moved.get(taken.order_id)
            if order is None:
                self._again(taken)
                continue
            before = taken.work.order.status
            taken.work = taken.work.after(order, move.step)
            taken.member.run(report, before, order)
            self._decide(taken)

    def _settle(self) -> None:
        settlements = [one for one in self._settlements if self._has(one[0])]
        self._settlements = []
        for part in _parts(settlements, self._size):
            with self._falling_apart([taken for taken, _ in part]):
                settled = self._ports.progress.settle(
                    [
                        Settlement(taken.work, reservation, taken.member.message.message_id)
                        for taken, reservation in part
                    ]
                )
                for taken, _ in part:
                    if taken.order_id not in settled:
                        self._again(taken)
                self._done([taken for taken, _ in part if taken.order_id in settled])

    def _has(self, taken: Taken) -> bool:
        return self._in_hand.get(taken.order_id) is taken

    @contextlib.contextmanager
    def _falling_apart(self, part: Iterable[Taken]) -> Iterator[None]:
        """Have the orders of a part handled one by one if anything fails for all of them."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 each order finds by itself what is wrong
            if isinstance(error, OrdersError):
                _log.warning("set.fell_apart", error=str(error))
            else:
                _log.exception("set.fell_apart")
            for taken in part:
                if self._has(taken):
                    self._leave(taken)

    # -- decisions ------------------------------------------------------------------------

    def _decide(self, taken: Taken) -> None:
        """Begin the next step of an order, as its status says."""
        work, asking = taken.work, self._ports.asking
        if work.processed:
            return
        match work.order.status:
            case Status.PENDING:
                asking.reserve(taken)
            case Status.RESERVED:
                self._moves.append((taken, decisions.charge_started(work)))
            case Status.CHARGING if work.attempt_id is not None:
                if work.attempt_may_be_known:
                    asking.find(taken)
                else:
                    asking.capture(taken)
            case Status.COMPLETED if _holds(work):
                asking.commit(taken)
            case Status.FAILED if _holds(work):
                asking.release(taken)
            case _:
                self._leave(taken)

    def _answered(self, answers: "Sequence[Answered[Taken]]") -> None:
        for taken, result, error in answers:
            if not self._has(taken):
                continue  # it left meanwhile
            with self._falling_apart([taken]):
                if error is not None:
                    self._failed(taken, error)
                else:
                    self._conclude(taken, result)

    def _conclude(self, taken: Taken, result: object) -> None:
        """Note what follows from an answer; the next statement commits it."""
        work = taken.work
        match work.order.status, result:
            case Status.PENDING, Standing() | OutOfStock():
                self._moves.append((taken, decisions.reserved(work, result)))
            case Status.CHARGING, Captured() | Declined():
                self._moves.append((taken, decisions.charged(work, result)))
            case Status.CHARGING, None:  # never arrived, so far
                taken.work = msgspec.structs.replace(work, attempt_may_be_known=False)
                self._decide(taken)
            case Status.COMPLETED, Standing.COMMITTED:
                self._settlements.append((taken, Reservation.COMMITTED))
            case Status.FAILED, Standing.RELEASED | Standing.UNKNOWN:
                self._settlements.append((taken, Reservation.RELEASED))
            case _:
                self._leave(taken)

    # -- the end --------------------------------------------------------------------------

    def _again(self, taken: Taken) -> None:
        """Look at an order again that others moved, or lock."""
        taken.rounds, taken.left_at = taken.rounds + 1, taken.work.order.version
        if taken.rounds < _ROUNDS:
            self._loads.append(taken)
        else:
            self._leave(taken)

    def _done(self, part: Sequence[Taken]) -> None:
        if not part:
            return
        for taken in part:
            del self._in_hand[taken.order_id]
            taken.member.run(_observe, taken)
        self._source.done([taken.member for taken in part])

    def _failed(self, taken: Taken, error: Exception) -> None:
        # Any other error says nothing of the order: it may only have lacked a connection here.
        about_it = isinstance(error, Permanent)
        if about_it and taken.member.run(quiet, taken.member.message, error):
            self._done([taken])
            return
        # What would pause everybody is found again by the message itself: it may be over by then.
        pauses = isinstance(error, Unavailable) and error.pause
        known = isinstance(error, Unavailable | Permanent) and not pauses
        self._leave(taken, error if known and isinstance(error, OrdersError) else None)

    def _leave(self, taken: Taken, error: OrdersError | None = None) -> None:
        del self._in_hand[taken.order_id]
        if error is not None:
            taken.member.run(_observe, taken)
        self._source.leave(taken.member, error)


def _parts(whole: list[Any], size: int) -> Iterable[list[Any]]:
    return (whole[at : at + size] for at in range(0, len(whole), size))


def _holds(work: Work) -> bool:
    return work.refund is None and is_open(work) and work.reservation is Reservation.HELD


def _advance_of(taken: Taken, move: Move) -> Advance:
    ids = taken.member.run(context.current)
    return Advance(taken.work, decisions.change(taken.work, move.event), move.step, ids)


def _span(taken: Taken, advance: Advance) -> Any:
    """Open an order's span of a statement; return what ends it."""
    attributes = {"order.id": taken.order_id, "order.status": advance.transition.to}
    block = taken.member.run(tracing.span, "AdvanceOrder", attributes)
    taken.member.run(block.__enter__)

    def end(*raised: object) -> None:
        taken.member.run(block.__exit__, *raised)

    return end


def _observe(taken: Taken) -> None:
    ORDER_PROCESSING.observe(time.monotonic() - taken.began_s, exemplar())
