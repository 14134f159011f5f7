"""What a thread talks to Redis through: connections to all primaries, and where each key lives."""

from collections.abc import Sequence
from typing import Final

import hiredis
from redis.crc import key_slot

from orders.cache.address import Connected
from orders.cache.connection import Argument, Closed, Command, Connection, Reply, pack

_SCRIPTS: Final = frozenset({b"EVALSHA", b"EVAL"})  # their key comes after text and number
_ASKING: Final = pack((b"ASKING",))


class Link:
    """Connections that are used, and given up, together."""

    def __init__(self, connected: Connected, generation: int) -> None:
        self._connections = connected.connections
        self._slots = None if connected.slots is None else list(connected.slots)
        self._first = next(iter(connected.connections.values()))
        self.generation = generation

    @property
    def usable(self) -> bool:
        """Whether this process made it."""
        return self._first.usable

    @property
    def servers(self) -> frozenset[bytes] | None:
        """What names the data of all servers together; None when one does not say it."""
        ids = {connection.replication_id for connection in self._connections.values()}
        return None if None in ids else frozenset(ids)  # type: ignore[arg-type]

    def close(self) -> None:
        """Close the connections to all servers."""
        for connection in self._connections.values():
            connection.close()

    def exchange(self, commands: Sequence[Command], deadline: float) -> list[Reply]:
        """Send the commands and return a reply for each; errors of the server are values.

        After any exception the link is useless. Raises as `Connection.exchange` does.
        """
        if self._slots is None:
            return self._first.exchange(b"".join(map(pack, commands)), len(commands), deadline)
        replies = self._scattered(commands, deadline)
        for index, reply in enumerate(replies):
            if isinstance(reply, hiredis.ReplyError):
                replies[index] = self._redirected(commands[index], reply, deadline)
        return replies

    def _scattered(self, commands: Sequence[Command], deadline: float) -> list[Reply]:
        """Send to all nodes first, then wait for all: one round trip."""
        by_node: dict[Connection, list[int]] = {}
        for index, command in enumerate(commands):
            by_node.setdefault(self._node_of(command), []).append(index)
        for connection, indexes in by_node.items():
            connection.send(b"".join(pack(commands[index]) for index in indexes))
        replies: list[Reply] = [None] * len(commands)
        for connection, indexes in by_node.items():
            collected = connection.collect(len(indexes), deadline)
            for index, reply in zip(indexes, collected, strict=True):
                replies[index] = reply
        return replies

    def _node_of(self, command: Command) -> Connection:
        key = _key(command)
        if key is None or self._slots is None:
            return self._first
        return self._connections[self._slots[key_slot(key)]]

    def _redirected(self, command: Command, refusal: hiredis.ReplyError, deadline: float) -> Reply:
        """Follow a slot that moves or has moved; other refusals stay what they are."""
        word, _, rest = str(refusal).partition(" ")
        if word not in {"MOVED", "ASK"} or self._slots is None:
            return refusal
        slot, _, address = rest.partition(" ")
        connection = self._connections.get(address)
        if connection is None:  # a node that was not there: connect anew, to all there are
            raise Closed(f"{word.lower()} to another node")
        if word == "MOVED":
            self._slots[int(slot)] = address
            return connection.exchange(pack(command), 1, deadline)[0]
        return connection.exchange(_ASKING + pack(command), 2, deadline)[1]


def _key(command: Command) -> bytes | None:
    """Return the key that chooses the node: the first one; None for a command without keys."""
    place = 3 if command[0] in _SCRIPTS else 1
    return _encode(command[place]) if len(command) > place else None


def _encode(argument: Argument) -> bytes:
    return argument if isinstance(argument, bytes) else str(argument).encode()
