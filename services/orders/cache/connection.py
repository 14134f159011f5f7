"""One thread's connections to Redis servers, with a time limit for each exchange.

A `RedisConnection` leads to one server. `PrimaryConnections` has those to all primaries, and knows
which one has each key. We read replies in our own loop, with hiredis. redis-py's timeout applies to
each piece of a reply instead of the whole, and its loop takes 1.3 times as much CPU.
"""

import contextlib
import os
import socket
import ssl
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

import hiredis
from redis.connection import AbstractConnection
from redis.crc import key_slot

Argument = bytes | str | float
Command = tuple[Argument, ...]
Reply = Any  # bytes, int, None, list, hiredis.ReplyError

_READ_BYTES: Final = 65_536
_NOTHING: Final = object()
_SCRIPTS: Final = frozenset({b"EVALSHA", b"EVAL"})  # arguments: text or SHA-1, number of keys, key


def pack(command: Command) -> bytes:
    """Return the bytes of a command."""
    payload: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub says 1-tuple
    return payload


_ASKING: Final = pack((b"ASKING",))


class Closed(ConnectionError):
    """Open another connection: the server closed this one before the reply."""


class NotPrimary(ConnectionError):
    """Find the primary: this server is a replica."""


class RedisConnection:
    """A connected socket, and the parser of its replies."""

    def __init__(self, link: AbstractConnection, timeout_s: float) -> None:
        self._link = link  # owns the socket, and closes it when garbage-collected
        self._socket = cast("socket.socket", link._sock)  # noqa: SLF001 no public attribute
        self._tls = isinstance(self._socket, ssl.SSLSocket)
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._buffer = bytearray(_READ_BYTES)
        self._timeout_s = timeout_s
        self._pid = os.getpid()
        self.replication_id: bytes | None = None
        self._socket.settimeout(None)
        self._limit(timeout_s)

    @property
    def usable(self) -> bool:
        """Whether this process opened it. After a fork both would read each other's replies."""
        return self._pid == os.getpid()

    def exchange(self, payload: bytes, replies: int, deadline: float) -> list[Reply]:
        """Send packed commands and return a reply for each; the server's errors are returned.

        After any exception the connection is useless: a late reply would answer the next command.
        Raises OSError (TimeoutError past `deadline`, Closed) and hiredis.ProtocolError.
        """
        self._socket.sendall(payload)
        return self.collect(replies, deadline)

    def collect(self, replies: int, deadline: float) -> list[Reply]:
        """Return one reply for each command that was sent. Raises as `exchange` does."""
        self._read()  # nearly always reads the whole reply
        return [
            reply if (reply := self._reader.gets()) is not _NOTHING else self._rest(deadline)
            for _ in range(replies)
        ]

    def identify(self, deadline: float) -> None:
        """Read the server's replication id, which changes when it restarts or is promoted.

        Waits until `deadline` instead of the connection's own limit. Raises NotPrimary, and what
        `exchange` raises.
        """
        self._socket.sendall(pack((b"INFO", b"replication")))
        reply = self._rest(deadline)
        if not isinstance(reply, bytes):
            return  # this user may not run the command
        fields = dict(line.partition(b":")[::2] for line in reply.splitlines())
        if fields.get(b"role", b"master") != b"master":
            raise NotPrimary("the server is a replica")
        self.replication_id = fields.get(b"master_replid")

    def send(self, payload: bytes) -> None:
        """Send packed commands whose replies are received one by one."""
        self._socket.sendall(payload)

    def receive(self) -> Reply:
        """Return the next reply or push message.

        Raises TimeoutError when nothing came for the connection's `timeout_s`; it stays usable.
        """
        while (reply := self._reader.gets()) is _NOTHING:
            self._read()
        return reply

    def read_available(self) -> list[Reply]:
        """Wait for data; return the complete replies and push messages."""
        self._read()
        replies = []
        while (reply := self._reader.gets()) is not _NOTHING:
            replies.append(reply)
        return replies

    def fileno(self) -> int:
        """Return the socket's file descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket, even while a thread reads from it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _rest(self, deadline: float) -> Reply:
        """Wait for the rest of a reply that came in pieces."""
        try:
            while (reply := self._reader.gets()) is _NOTHING:
                self._limit(deadline - time.monotonic())
                self._read()
        finally:
            self._limit(self._timeout_s)
        return reply

    def _read(self) -> None:
        try:
            size = self._socket.recv_into(self._buffer)
        except BlockingIOError as error:
            raise TimeoutError("no reply in time") from error
        if not size:
            raise Closed("the server closed the connection")
        self._reader.feed(self._buffer, 0, size)  # type: ignore[arg-type]  # any buffer will do

    def _limit(self, seconds: float) -> None:
        """Limit each wait to `seconds` with a socket option; `settimeout` would add a poll()."""
        if seconds <= 0:
            raise TimeoutError("no reply in time")
        if self._tls:
            self._socket.settimeout(seconds)
            return
        interval = struct.pack("ll", int(seconds), max(1, int(seconds % 1 * 1e6)))  # timeval
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)


class Connected(NamedTuple):
    """Connections to all primaries by address; in a cluster, also the address of every slot."""

    connections: Mapping[str, RedisConnection]
    slots: Sequence[str] | None


class PrimaryConnections:
    """One thread's connections to all primaries. They are used and dropped together."""

    def __init__(self, connected: Connected, generation: int) -> None:
        self._connections = connected.connections
        self._slots = None if connected.slots is None else list(connected.slots)
        self._first = next(iter(connected.connections.values()))
        self.generation = generation

    @property
    def usable(self) -> bool:
        """Whether this process opened it."""
        return self._first.usable

    @property
    def servers(self) -> frozenset[bytes] | None:
        """The replication ids of all servers; None if one of them is unknown."""
        ids = {connection.replication_id for connection in self._connections.values()}
        return None if None in ids else frozenset(ids)  # type: ignore[arg-type]

    def close(self) -> None:
        """Close the connections to all servers."""
        for connection in self._connections.values():
            connection.close()

    def exchange(self, commands: Sequence[Command], deadline: float) -> list[Reply]:
        """Send the commands and return a reply for each; the server's errors are returned.

        After any exception these connections are useless. Raises as `RedisConnection.exchange`.
        """
        if self._slots is None:
            return self._first.exchange(b"".join(map(pack, commands)), len(commands), deadline)
        replies = self._exchange_with_nodes(commands, deadline)
        for index, reply in enumerate(replies):
            if isinstance(reply, hiredis.ReplyError):
                replies[index] = self._follow_redirect(commands[index], reply, deadline)
        return replies

    def _exchange_with_nodes(self, commands: Sequence[Command], deadline: float) -> list[Reply]:
        """Send to all nodes first and then wait for all, which takes a single round trip."""
        by_node: dict[RedisConnection, list[int]] = {}
        for index, command in enumerate(commands):
            by_node.setdefault(self._node_of(command), []).append(index)
        for connection, indexes in by_node.items():
            connection.send(b"".join(pack(commands[index]) for index in indexes))
        replies: list[Reply] = [None] * len(commands)
        for connection, indexes in by_node.items():
            node_replies = connection.collect(len(indexes), deadline)
            for index, reply in zip(indexes, node_replies, strict=True):
                replies[index] = reply
        return replies

    def _node_of(self, command: Command) -> RedisConnection:
        key = _key(command)
        if key is None or self._slots is None:
            return self._first
        return self._connections[self._slots[key_slot(key)]]

    def _follow_redirect(
        self, command: Command, refusal: hiredis.ReplyError, deadline: float
    ) -> Reply:
        """Repeat a command whose slot moves or has moved; return any other refusal as it is."""
        code, _, target = str(refusal).partition(" ")
        if code not in {"MOVED", "ASK"} or self._slots is None:
            return refusal
        slot, _, address = target.partition(" ")
        connection = self._connections.get(address)
        if connection is None:  # a new node: connect anew, to all nodes
            raise Closed(f"{code.lower()} to another node")
        if code == "MOVED":
            self._slots[int(slot)] = address
            return connection.exchange(pack(command), 1, deadline)[0]
        return connection.exchange(_ASKING + pack(command), 2, deadline)[1]


def _key(command: Command) -> bytes | None:
    """Return a command's first key, which determines the node; None if it has no keys."""
    index = 3 if command[0] in _SCRIPTS else 1
    if len(command) <= index:
        return None
    key = command[index]
    return key if isinstance(key, bytes) else str(key).encode()
