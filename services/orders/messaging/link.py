"""One AMQP channel, kept open on a separate thread through all outages.

A pika connection may be used by one thread only. The link's thread runs pika's event loop, so
heartbeats continue while other threads work. It reconnects with back-off. Other threads use the
channel through `Link.call`.
"""

import collections
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol, cast

import pika
import structlog
from pika.adapters.select_connection import IOLoop, SelectConnection
from pika.adapters.utils import connection_workflow
from pika.channel import Channel

from orders import verified
from orders.messaging import decoding
from orders.messaging.address import BrokerAddress, host_and_port, shuffle_addresses
from orders.settings import MessagingSettings

_FIRST_DELAY_S: Final = 0.2
_MAX_DELAY_S: Final = 5.0
# After a connection that served for less, the delay grows instead of starting anew.
_SETTLED_S: Final = 5.0
# A broker confirms the close of a connection at once; a frozen one never does.
_CLOSE_S: Final = 5.0

_log = structlog.get_logger()

# Runs on the link's thread with the open channel, or anywhere with None if there is none.
ChannelFunction = Callable[[Channel | None], None]


class ChannelUser(Protocol):
    """Publishes or consumes through a link, which calls these methods on its own thread."""

    def opened(self, channel: Channel) -> None:
        """Set the new channel up, then call `Link.mark_serving`."""

    def lost(self) -> None:
        """Abandon all work on the lost channel."""


class BrokerConnection(SelectConnection):  # type: ignore[misc] # pika has no types
    """pika's connection with two internal methods replaced.

    If a later pika no longer calls one of them, its own code runs instead, which is only slower or
    less tolerant.
    """

    def _output_marshaled_frames(self, marshaled_frames: Sequence[bytes]) -> None:
        """Send the three frames of a message at once.

        pika sends each in its own packet, which halves the rate at which the broker confirms.
        """
        super()._output_marshaled_frames([b"".join(marshaled_frames)])

    def _read_frame(self) -> decoding.Frame:
        """Decode the properties of messages; a malformed one does not end the connection."""
        return decoding.read_frame(self._frame_buffer)


class Hosts:
    """The hosts of a broker, each tried once before any is tried again."""

    def __init__(self, addresses: Sequence[BrokerAddress]) -> None:
        self._addresses = list(addresses)
        self._left = list(addresses)
        self._tried: BrokerAddress | None = None

    @property
    def untried(self) -> bool:
        """Whether a host is left that was not tried in this round."""
        return bool(self._left)

    def next(self) -> BrokerAddress:
        """Return the host to try now."""
        self._left = self._left or list(self._addresses)
        self._tried = self._left.pop(0)
        return self._tried

    def lost(self) -> None:
        """Begin a new round without the host tried last, which was lost while it served."""
        self._left = [address for address in self._addresses if address is not self._tried]
        random.shuffle(self._left)


class Link:
    """A supervised channel. `problem` says why it does not serve; None if it does."""

    def __init__(self, settings: MessagingSettings, name: str, user: ChannelUser) -> None:
        self._hosts = Hosts(shuffle_addresses(settings, name))
        self._name, self._user = name, user
        self._thread = threading.Thread(target=self._run, name=f"amqp-{name}", daemon=True)
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # guards the four below
        self._loop: IOLoop | None = None
        self._channel: Channel | None = None
        self._calls: collections.deque[ChannelFunction] = collections.deque()
        self.problem: str | None = "not connected to RabbitMQ yet"
        self._reason: str | None = None  # why this connection ended; the first cause is kept
        self._connection: SelectConnection | None = None
        self._serving_since: float | None = None

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._thread.start()

    def call(self, function: ChannelFunction) -> None:
        """Have `function` run exactly once, in order of the calls. Thread-safe."""
        with self._lock:
            if self._channel is not None and self._loop is not None:
                self._calls.append(function)
                if len(self._calls) == 1:
                    self._loop.add_callback_threadsafe(self._run_calls)
                return
        function(None)

    def close(self, timeout_s: float) -> None:
        """Close after the calls made so far; unacknowledged deliveries go back to their queue."""
        self._stopping.set()
        with self._lock:
            if self._loop is not None:
                self._loop.add_callback_threadsafe(self._close)
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    # On the link's thread from here on.

    def mark_serving(self, channel: Channel) -> None:
        """Let calls use the channel, now that the user has set it up."""
        with self._lock:
            self._channel = channel
        self.problem = None
        self._serving_since = time.monotonic()
        _log.info("amqp.connected", link=self._name)

    def reset(self, reason: str) -> None:
        """Replace the connection after a protocol error of the broker."""
        self._reason = self._reason or reason
        self._close()

    def _run(self) -> None:
        delay_s = _FIRST_DELAY_S
        while not self._stopping.is_set():
            address = self._hosts.next()
            served_s = self._live(address)
            if self._stopping.is_set():
                break
            host = host_and_port(address)
            _log.warning("amqp.disconnected", link=self._name, host=host, reason=self.problem)
            if served_s > _SETTLED_S:
                self._hosts.lost()
                delay_s = _FIRST_DELAY_S
            if not self._hosts.untried:
                self._stopping.wait(delay_s * random.uniform(0.5, 1))  # noqa: S311 no secret
                delay_s = min(delay_s * 2, _MAX_DELAY_S)

    def _live(self, address: BrokerAddress) -> float:
        """Connect, serve until the connection is gone, and return for how long it served."""
        self._serving_since = self._reason = None
        loop = IOLoop()
        with self._lock:
            self._loop = loop
        try:
            address.renew()
            self._connection = BrokerConnection(
                address,
                on_open_callback=self._connected,
                on_open_error_callback=self._gone,
                on_close_callback=self._gone,
                custom_ioloop=loop,
            )
            if not self._stopping.is_set():
                loop.start()
        except Exception as error:  # noqa: BLE001 connect again after any failure
            # A frame that pika cannot read ends its loop, but must not end this thread.
            _log.exception("amqp.failed", link=self._name)
            self._reason = describe(error)
        finally:
            self._abandon(loop)
        return time.monotonic() - self._serving_since if self._serving_since else 0.0

    def _abandon(self, loop: IOLoop) -> None:
        with self._lock:
            self._loop = self._channel = None
            calls, self._calls = self._calls, collections.deque()
        self._connection = None
        self.problem = self._reason or "the connection to RabbitMQ was closed"
        for function in calls:
            function(None)
        self._user.lost()
        loop.close()

    def _connected(self, connection: SelectConnection) -> None:
        connection.add_on_connection_blocked_callback(self._blocked)
        connection.add_on_connection_unblocked_callback(self._unblocked)
        connection.channel(on_open_callback=self._channel_opened)

    def _channel_opened(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._channel_closed)
        self._user.opened(channel)

    def _channel_closed(self, _channel: Channel, reason: Exception) -> None:
        self.reset(describe(reason))

    def _blocked(self, _connection: SelectConnection, frame: "pika.frame.Method") -> None:
        self.problem = f"RabbitMQ blocks publishers: {frame.method.reason}"
        _log.warning("amqp.blocked", link=self._name, reason=frame.method.reason)

    def _unblocked(self, _connection: SelectConnection, _frame: "pika.frame.Method") -> None:
        if self._serving_since is not None:
            self.problem = None

    def _gone(self, connection: SelectConnection, error: BaseException) -> None:
        self._reason = self._reason or describe(error)
        connection.ioloop.stop()

    def _run_calls(self) -> None:
        while self._calls:
            function = self._calls[0]
            channel = self._channel
            try:
                function(channel if channel is not None and channel.is_open else None)
            finally:
                self._calls.popleft()

    def _close(self) -> None:
        connection = self._connection
        if connection is not None and not (connection.is_closing or connection.is_closed):
            connection.close()
            connection.ioloop.call_later(_CLOSE_S, connection.ioloop.stop)


def describe(error: BaseException) -> str:
    """Describe a failure in one line, from the innermost of pika's wrapped errors."""
    while (inner := _inner(error)) is not None:
        error = inner
    text = verified.advice(error) or str(error) or "no reason given"
    return f"RabbitMQ: {type(error).__name__}: {text}"[:300]


def _inner(error: BaseException) -> BaseException | None:
    if isinstance(error, connection_workflow.AMQPConnectionWorkflowFailed):
        return cast("BaseException", error.exceptions[-1])
    if isinstance(error, connection_workflow.AMQPConnectorPhaseErrorBase):
        return cast("BaseException", error.exception)
    if isinstance(error, pika.exceptions.AMQPConnectionError) and error.args:
        cause = error.args[0]
        return cause if isinstance(cause, BaseException) else None
    return None
