"""Sets of messages of one queue, which a handler of sets works on together, on a separate thread.

The handler takes the messages that have arrived. It acknowledges each one, or gives it back to be
handled singly, as all unusual cases are. Meanwhile the next set fills. A message that arrives alone
is a set of one.
"""

import collections
import contextlib
import contextvars
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Generic, Protocol, TypeVar

import structlog
from opentelemetry.trace import Span
from pika.channel import Channel

from orders.errors import OrdersError
from orders.messaging.envelope import Delivery, Message
from orders.messaging.handling import Handling

# Wait before the handler begins again after a bug, so that a lasting bug does not fill the log.
_REST_S: Final = 1.0

_log = structlog.get_logger()


class OpenDelivery(Protocol):
    """A delivery, and the channel that it came on."""

    delivery: Delivery
    channel: Channel


W = TypeVar("W", bound=OpenDelivery)
W_contra = TypeVar("W_contra", bound=OpenDelivery, contravariant=True)


class Member:
    """A message of a set. `run` calls a function in the message's context (its ids and span)."""

    __slots__ = ("block", "message", "run", "span", "started_s", "work")

    def __init__(self, work: Any, message: Message, run: Callable[..., Any]) -> None:
        self.work, self.message, self.run = work, message, run
        self.block: AbstractContextManager[Span | None] = contextlib.nullcontext()
        self.span: Span | None = None
        self.started_s = 0.0

    def close(self) -> None:
        """End the message's span, in its context."""
        self.run(self.block.__exit__, None, None, None)


class SetOutcomes(Protocol[W_contra]):
    """Takes the messages that leave their set."""

    def finish(self, works: Sequence[W_contra]) -> None:
        """Acknowledge the messages of orders that are done."""

    def handle_singly(self, works: Sequence[W_contra], error: OrdersError | None) -> None:
        """Handle them one by one; `error` is how their first try ended, if known."""

    def let_go(self, works: Sequence[W_contra]) -> None:
        """Drop them; the broker redelivers them to another consumer."""

    @property
    def paused(self) -> str | None:
        """Why messages are held instead of handled; None if they are not."""

    @property
    def stopping(self) -> bool:
        """Whether nothing new may begin."""


class Source(Protocol):
    """The source of a set handler's messages, and the sink of their outcomes."""

    @property
    def closed(self) -> bool:
        """Whether the handler is to end."""

    @property
    def waiting(self) -> bool:
        """Whether there are messages to take."""

    def take(self, limit: int) -> list[Member]:
        """Begin up to `limit` messages."""

    def done(self, members: Sequence[Member]) -> None:
        """Acknowledge messages that need no more work."""

    def leave(self, member: Member, error: OrdersError | None) -> None:
        """Have a message handled singly; `error`, if known, is how its try ended."""


class SetHandler(Protocol):
    """Works on the messages of sets."""

    def work(self, sets: "Source") -> None:
        """Take messages, and finish or leave each, until the sets are closed."""

    def wake(self) -> None:
        """Look for messages that arrived, or for the end. Thread-safe."""


class Sets(Generic[W]):
    """The messages that arrived and are not begun, and those that the handler works on."""

    def __init__(
        self, handling: Handling, outcomes: SetOutcomes[W], handler: SetHandler, name: str
    ) -> None:
        self._handling, self._outcomes, self._handler = handling, outcomes, handler
        self._arrived: collections.deque[W] = collections.deque()
        self._in_hand: set[Member] = set()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread of the handler."""
        self._thread.start()

    def close(self) -> None:
        """Let the handler end after its current turn."""
        self._closed.set()
        self._handler.wake()

    def wake(self) -> None:
        """Have the handler look again. Thread-safe."""
        self._handler.wake()

    def add(self, work: W) -> None:
        """Add a message that arrived. Thread-safe."""
        self._arrived.append(work)
        self._handler.wake()

    # On the handler's thread.

    @property
    def closed(self) -> bool:
        """Whether the handler is to end."""
        return self._closed.is_set()

    @property
    def waiting(self) -> bool:
        """Whether there are messages to take."""
        return bool(self._arrived)

    def take(self, limit: int) -> list[Member]:
        """Begin up to `limit` messages; those that cannot begin here are handled singly."""
        if self._arrived and self._outcomes.stopping:
            self._outcomes.let_go(self._take_arrived(len(self._arrived)))
        elif self._arrived and self._outcomes.paused is not None:
            self._outcomes.handle_singly(self._take_arrived(len(self._arrived)), None)
        return [member for work in self._take_arrived(limit) for member in self._begin(work)]

    def _take_arrived(self, limit: int) -> list[W]:
        return [self._arrived.popleft() for _ in range(min(limit, len(self._arrived)))]

    def _begin(self, work: W) -> list[Member]:
        if not work.channel.is_open:  # it went back to the queue when its channel closed
            self._outcomes.let_go([work])
            return []
        started_s = time.perf_counter()
        run = contextvars.copy_context().run
        block: AbstractContextManager[Span | None] = contextlib.nullcontext()
        try:
            block = self._handling.root(work.delivery)
            span = run(block.__enter__)
            message = run(self._handling.read, work.delivery, span)
        except Exception:  # noqa: BLE001 found again, and logged, when it is handled singly
            run(block.__exit__, None, None, None)
            self._outcomes.handle_singly([work], None)
            return []
        member = Member(work, message, run)
        member.block, member.span, member.started_s = block, span, started_s
        self._in_hand.add(member)
        return [member]

    def done(self, members: Sequence[Member]) -> None:
        """Acknowledge messages that need no more work."""
        self._in_hand.difference_update(members)
        try:
            for member in members:
                member.run(self._handling.record_processed, member.work.delivery, member.started_s)
                member.close()
        finally:  # even if logging or metrics fail
            self._outcomes.finish([member.work for member in members])

    def leave(self, member: Member, error: OrdersError | None) -> None:
        """Have a message handled singly; `error`, if known, is how its try ended."""
        self._in_hand.discard(member)
        try:
            if member.span is not None:
                reason = type(error).__name__ if error else "again"
                member.span.set_attribute("order.left_set", reason)
            member.close()
        finally:
            self._outcomes.handle_singly([member.work], error)

    def _run(self) -> None:
        while not self.closed:
            try:
                self._handler.work(self)
            except BaseException:  # noqa: BLE001 not even sys.exit may end the thread
                _log.exception("set.failed")
                for member in list(self._in_hand):
                    self.leave(member, None)
                # New messages too: a handler that always fails would never take them.
                self._outcomes.handle_singly(self._take_arrived(len(self._arrived)), None)
                self._closed.wait(_REST_S)
            # The stop waits for these messages, so it must not depend on the handler to take them.
            if self._outcomes.stopping:
                self._outcomes.let_go(self._take_arrived(len(self._arrived)))
