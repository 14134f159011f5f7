"""The runtime of a consumer process: one queue, several handler threads, no message lost.

The handler commits. Then the consumer acknowledges the message on the channel that delivered it. A
crash in between delivers it again, so handlers deduplicate by `message_id`.
"""

import functools
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import structlog
from pika import BasicProperties
from pika.channel import Channel
from pika.spec import Basic

from orders.errors import OrdersError
from orders.messaging import envelope
from orders.messaging.envelope import FEW, Customer, Delivery, customer_of
from orders.messaging.handling import Handled, Handler, Handling, NextAction, Pause
from orders.messaging.link import Link
from orders.messaging.publisher import Publisher
from orders.messaging.sets import SetHandler, Sets
from orders.messaging.verdict import RetryPolicy
from orders.settings import MessagingSettings
from orderservice_topology.topology import RETRY_TIERS, Tier

# A message held for longer is put off: other messages may not need the unavailable dependency.
_MAKE_ROOM_S: Final = 60.0
# The broker closes the channel of a consumer that keeps a message for 30 minutes.
_MAX_HOLD_S: Final = 600.0
# Closing takes milliseconds. A broker that does not answer must not use up the time to stop.
_CLOSE_S: Final = 3.0
# Shorter than the publisher's own default: a handler thread waits for it.
_CONFIRM_S: Final = 10.0
# At most this many messages have priority at a time: more would delay each other.
PRIORITY: Final = 10

_log = structlog.get_logger()


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a consumer: messages at once, tries, and time to stop."""

    prefetch: int  # messages handled at once outside of sets, each on its own thread
    max_tries: int
    drain_s: float
    tiers: tuple[Tier, ...] = RETRY_TIERS
    give_up_after_s: float = 86_400  # dead-letter a message that outages delay for longer
    set_size: int = 1  # messages worked on together, if there is a handler of sets

    # Wait before a message is tried again that could be neither handled nor copied. It is not
    # requeued, because the queue counts deliveries and dead-letters messages with too many.
    copy_retry_s: float = 5.0

    @property
    def in_hand(self) -> int:
        """How many unacknowledged messages to take: two sets, and those handled singly."""
        return self.prefetch + (2 * self.set_size if self.set_size > 1 else 0)


class _Work(msgspec.Struct, eq=False):
    delivery: Delivery
    channel: Channel
    arrived_s: float
    customer: Customer | None
    priority: bool
    failure: OrdersError | None = None  # how its first try, in a set, ended


class _UnackedTags:
    """The unacknowledged deliveries of one channel, oldest first."""

    def __init__(self) -> None:
        self._tags: dict[int, None] = {}

    def add(self, tag: int) -> None:
        self._tags[tag] = None

    def remove_tags(self, tags: Iterable[int]) -> tuple[int | None, list[int]]:
        """Remove tags; return how to acknowledge them with the fewest frames.

        The first result acknowledges all deliveries up to this tag; None if there are none. The
        second one has the tags to acknowledge singly.
        """
        single_tags = set(tags)
        last_tag = None
        while self._tags and (oldest_tag := next(iter(self._tags))) in single_tags:
            del self._tags[oldest_tag]
            single_tags.discard(oldest_tag)
            last_tag = oldest_tag
        for tag in single_tags:
            self._tags.pop(tag, None)
        return last_tag, sorted(single_tags)


class InHand:
    """Counts a process's unacknowledged messages by customer. Not thread-safe.

    While one customer has many messages, those of customers with few have priority, at most
    `maximum` at a time.
    """

    def __init__(self, maximum: int) -> None:
        self._most = maximum
        self._with_priority = 0
        self._counts: Counter[Customer] = Counter()
        self._crowds = 0  # customers with more than a few messages

    def add(self, customer: Customer | None) -> bool:
        """Count a message; return whether it has priority."""
        if customer is None:
            return False
        self._counts[customer] += 1
        count = self._counts[customer]
        self._crowds += count == FEW + 1
        priority = count <= FEW and self._crowds > 0 and self._with_priority < self._most
        self._with_priority += priority
        return priority

    def remove(self, customer: Customer | None, *, priority: bool) -> None:
        """Remove a message from the counts; `priority` is what `add` returned for it."""
        if customer is None:
            return
        self._with_priority -= priority
        self._crowds -= self._counts[customer] == FEW + 1
        self._counts[customer] -= 1
        if not self._counts[customer]:
            del self._counts[customer]


class Consumer:
    """Consumes one queue until it is stopped, through every restart of the broker."""

    def __init__(
        self,
        settings: MessagingSettings,
        queue_name: str,
        handler: Handler,
        limits: Limits,
        *set_handlers: SetHandler,
    ) -> None:
        """Take the handler of single messages, and those of sets, if any.

        The second handler of sets works on the messages that have priority.
        """
        self._queue, self._limits = queue_name, limits
        self._publisher = Publisher(settings, f"{queue_name} publisher", _CONFIRM_S)
        policy = RetryPolicy(limits.max_tries, limits.tiers, limits.give_up_after_s)
        self._pause = Pause(queue_name)
        self._handling = Handling(queue_name, handler, policy, self._publisher)
        self._link = Link(settings, f"{queue_name} consumer", self)
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._sets: list[Sets[_Work]] = []
        if limits.set_size > 1:
            names = (f"{queue_name}-sets", f"{queue_name}-priority")
            self._sets = [
                Sets(self._handling, self, set_handler, name)
                for set_handler, name in zip(set_handlers, names, strict=False)
            ]
        self._unacked_tags = _UnackedTags()  # on the link's thread
        self._stopping = threading.Event()
        self._idle = threading.Condition()
        self._under_way = 0  # guarded by _idle
        self._in_hand = InHand(PRIORITY if len(self._sets) > 1 else 0)  # guarded by _idle

    def start(self) -> None:
        """Begin to connect and consume; returns at once."""
        self._publisher.start()
        for number in range(self._limits.prefetch):
            # Daemon threads: a handler that never returns must not keep the process alive.
            name = f"{self._queue}-{number}"
            threading.Thread(target=self._handle_all, name=name, daemon=True).start()
        for sets in self._sets:
            sets.start()
        self._link.start()

    def stop(self) -> bool:
        """Stop taking messages, wait for those in flight, close; return whether all ended in time.

        Closing returns the other messages to the queue.
        """
        self._stopping.set()
        self._pause.close()  # held messages go back to the queue
        self._link.call(self._cancel)
        for sets in self._sets:
            sets.wake()  # messages not begun go back as well
        with self._idle:
            drained = self._idle.wait_for(lambda: self._under_way == 0, self._limits.drain_s)
            count = self._under_way
        self._link.close(_CLOSE_S)
        for sets in self._sets:
            sets.close()
        for _ in range(self._limits.prefetch):
            self._work.put(None)
        self._publisher.close(timeout_s=1)
        _log.info("consumer.stopped", queue=self._queue, drained=drained, left=count)
        return drained

    @property
    def problem(self) -> str | None:
        """Why no messages can be handled now, for readiness; None if they can."""
        return self._link.problem or self._publisher.problem

    @property
    def paused(self) -> str | None:
        """Why messages are held instead of handled; None if they are not."""
        return self._pause.problem

    # On the link's thread.

    def opened(self, channel: Channel) -> None:
        """Consume on a new channel."""
        channel.add_on_cancel_callback(self._cancelled)
        self._unacked_tags = _UnackedTags()
        channel.basic_qos(
            prefetch_count=self._limits.in_hand, callback=lambda _frame: self._consume(channel)
        )

    def lost(self) -> None:
        """Release the held messages: the broker redelivers them to other consumers."""
        self._pause.wake()

    def _consume(self, channel: Channel) -> None:
        if not self._stopping.is_set():
            channel.basic_consume(
                self._queue, self._arrived, callback=lambda _frame: self._link.mark_serving(channel)
            )

    def _arrived(
        self, channel: Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes
    ) -> None:
        self._unacked_tags.add(method.delivery_tag)
        if self._stopping.is_set():
            return  # closing returns it to the queue
        customer = customer_of(body) if self._sets else None
        delivery = envelope.delivery_of(self._queue, method, properties, body)
        with self._idle:
            self._under_way += 1
            priority = self._in_hand.add(customer)
        work = _Work(delivery, channel, time.monotonic(), customer, priority)
        if self._sets:
            self._sets[priority].add(work)
        else:
            self._work.put(work)

    def _cancel(self, channel: Channel | None) -> None:
        if channel is not None:
            for tag in channel.consumer_tags:
                channel.basic_cancel(tag)

    def _cancelled(self, _frame: object) -> None:
        self._link.reset(f"RabbitMQ cancelled the consumer: was queue {self._queue} deleted?")

    def _acknowledge(self, works: Sequence[_Work], ack: bool, channel: Channel | None) -> None:  # noqa: FBT001
        # Its connection is gone, so the broker delivers the message again.
        tags = [work.delivery.tag for work in works if work.channel is channel]
        if channel is None or not tags:
            return
        last_tag, single_tags = self._unacked_tags.remove_tags(tags)
        if not ack:
            for tag in tags:
                channel.basic_nack(tag, requeue=True)
            return
        if last_tag is not None:
            channel.basic_ack(last_tag, multiple=True)
        for tag in single_tags:
            channel.basic_ack(tag)

    # On the thread of the sets.

    @property
    def stopping(self) -> bool:
        """Whether nothing new may begin."""
        return self._stopping.is_set()

    def finish(self, works: Sequence[_Work]) -> None:
        """Acknowledge messages that a set is done with."""
        self._link.call(functools.partial(self._acknowledge, works, True))
        self.let_go(works)

    def handle_singly(self, works: Sequence[_Work], error: OrdersError | None) -> None:
        """Handle messages one by one; `error` is how their try in a set ended, if known."""
        for work in works:
            work.failure = error
            self._work.put(work)

    def let_go(self, works: Sequence[_Work]) -> None:
        """Count messages as no longer under way in this process."""
        with self._idle:
            self._under_way -= len(works)
            for work in works:
                self._in_hand.remove(work.customer, priority=work.priority)
            self._idle.notify_all()

    # On the handler threads.

    def _handle_all(self) -> None:
        for work in iter(self._work.get, None):
            try:
                self._handle(work)
            finally:
                self.let_go([work])

    def _handle(self, work: _Work) -> None:
        if self._stopping.is_set() and self._sets:
            return  # it left its set and waited: closing returns it to the queue
        ack = self._handle_until_done(work)
        if ack is not None:
            self._link.call(functools.partial(self._acknowledge, [work], ack))

    def _handle_until_done(self, work: _Work) -> bool | None:
        """Try until a message is done; return whether to acknowledge it, else it is requeued.

        None if it went back to the queue with its channel.
        """
        began_s = work.arrived_s
        if work.failure is not None:
            ack = self._carry_out(work, work.failure)
            work.failure = None
            if ack is None or ack:
                return ack
        while True:
            # The message went back to the queue when its channel closed.
            action = self._pause.enter(began_s + _MAX_HOLD_S, lambda: work.channel.is_open)
            if action is None:
                return None
            if action is NextAction.EXPIRED:
                return self._handling.put_off(work.delivery)
            held_s = time.monotonic() - began_s
            result = self._try(work, action, may_hold=held_s < _MAKE_ROOM_S)
            if not result.held:
                return True
            if held_s > _MAX_HOLD_S:
                return False
            if result.outage is None or not result.outage.pause:
                # Its copy could not be published, or an unexpected error came.
                self._stopping.wait(self._limits.copy_retry_s)

    def _carry_out(self, work: _Work, failure: OrdersError) -> bool | None:
        """Apply the verdict on a message's try in a set; false if it has to be tried again.

        It does not enter the pause and reports nothing to it: the try may be long ago.
        """
        if not work.channel.is_open:
            return None
        try:
            if not self._handling.handle(work.delivery, failure=failure).held:
                return True
        except BaseException:  # noqa: BLE001 as in a try
            _log.exception("message.thread_failed", queue=self._queue)
        self._stopping.wait(self._limits.copy_retry_s)
        return False

    def _try(self, work: _Work, action: NextAction, *, may_hold: bool) -> Handled:
        result = Handled(held=True)
        try:
            result = self._handling.handle(work.delivery, may_hold=may_hold)
        except BaseException:  # noqa: BLE001 not even sys.exit may end the thread
            _log.exception("message.thread_failed", queue=self._queue)
        finally:
            self._pause.leave(action, result.outage)
        return result
