"""The broker's own rate of confirms: prepared frames on a plain socket, with a window unconfirmed.

A client library would bound the rate, so pika only encodes the frames.
"""

import socket
import struct
import time
from collections.abc import Sequence
from typing import Any, Final, Self
from urllib.parse import unquote, urlsplit

from pika import BasicProperties, frame, spec

from loadtest.bench.generators import BenchFailed, Throughput

WINDOW: Final = 1000  # the relay's own window
_PROTOCOL: Final = b"AMQP\x00\x00\x09\x01"
_CHANNEL: Final = 1
# A frame with basic.ack: type, channel, size, class, method, delivery tag, multiple, end.
_ACK: Final = struct.Struct(">BHIHHQ?B")
_ACK_METHOD: Final = (spec.Basic.Ack.INDEX >> 16, spec.Basic.Ack.INDEX & 0xFFFF)


def message(exchange: str, key: str, properties: BasicProperties, body: bytes) -> bytes:
    """Return the frames of a message as bytes."""
    publish = spec.Basic.Publish(exchange=exchange, routing_key=key, mandatory=True)
    frames = (
        frame.Method(_CHANNEL, publish),
        frame.Header(_CHANNEL, len(body), properties),
        frame.Body(_CHANNEL, body),
    )
    return b"".join(item.marshal() for item in frames)


class Channel:
    """A channel in confirm mode. Use it as a context manager."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._socket = socket.create_connection((address.hostname, address.port or 5672), 30)
        self._buffer = b""
        self._published = 0
        self._floor = 1  # every tag below is confirmed
        self._open(address)

    def __enter__(self) -> Self:
        """Return the open channel."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection; the broker keeps confirmed messages."""
        self._socket.close()

    def publish(self, messages: Sequence[bytes]) -> Throughput:
        """Publish all messages, and wait for their confirms. Raises BenchFailed."""
        began_s = time.perf_counter()
        count, open_tags = 0, set[int]()
        while count < len(messages) or open_tags:
            room = min(len(messages) - count, WINDOW - len(open_tags))
            if room:
                first = self._published + 1
                self._published += room
                open_tags.update(range(first, self._published + 1))
                self._socket.sendall(b"".join(messages[count : count + room]))
                count += room
            self._confirm(open_tags)
        return Throughput(count, count / (time.perf_counter() - began_s))

    def purge(self, queue: str) -> None:
        """Delete the messages of a queue, and wait for the broker's answer."""
        self._ask(_CHANNEL, spec.Queue.Purge(queue=queue), spec.Queue.PurgeOk)

    def _confirm(self, open_tags: set[int]) -> None:
        """Read confirms, which all have the same size."""
        self._receive()
        length = len(self._buffer) // _ACK.size * _ACK.size
        arrived, self._buffer = self._buffer[:length], self._buffer[length:]
        for *_, kind, method, tag, multiple, _ in _ACK.iter_unpack(arrived):
            if (kind, method) != _ACK_METHOD:
                raise BenchFailed(f"the broker did not confirm: method {kind}.{method}")
            if multiple:
                open_tags.difference_update(range(self._floor, tag))
                self._floor = tag + 1
            open_tags.discard(tag)

    def _receive(self) -> None:
        received = self._socket.recv(65_536)
        if not received:
            raise BenchFailed("the broker closed the connection")
        self._buffer += received

    def _open(self, address: Any) -> None:
        self._socket.sendall(_PROTOCOL)
        self._expect(spec.Connection.Start)
        login = f"\0{unquote(address.username)}\0{unquote(address.password)}"
        self._ask(
            0,
            spec.Connection.StartOk(client_properties={}, response=login),
            spec.Connection.Tune,
        )
        self._send(0, spec.Connection.TuneOk(channel_max=1, frame_max=131_072, heartbeat=0))
        vhost = unquote(address.path[1:])
        self._ask(0, spec.Connection.Open(virtual_host=vhost), spec.Connection.OpenOk)
        self._ask(_CHANNEL, spec.Channel.Open(), spec.Channel.OpenOk)
        self._ask(_CHANNEL, spec.Confirm.Select(), spec.Confirm.SelectOk)

    def _ask(self, channel: int, method: Any, answer: type[Any]) -> None:
        self._send(channel, method)
        self._expect(answer)

    def _send(self, channel: int, method: Any) -> None:
        self._socket.sendall(frame.Method(channel, method).marshal())

    def _expect(self, kind: type[Any]) -> Any:
        """Return the next method. Raises BenchFailed if it is of another kind."""
        while True:
            length, value = frame.decode_frame(self._buffer)
            if value is not None:
                self._buffer = self._buffer[length:]
                break
            self._receive()
        method = getattr(value, "method", value)
        if not isinstance(method, kind):
            raise BenchFailed(f"the broker said {method}")
        return method
