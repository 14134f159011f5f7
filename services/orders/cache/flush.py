"""Deletes every cached order: after a promotion, some versions may come from lost commits."""

import contextlib
import time
import uuid
from collections.abc import Collection
from typing import Final

import hiredis
from redis.exceptions import RedisError

from orders.cache.address import target_of
from orders.cache.client import RedisDown
from orders.cache.connection import RedisConnection, pack
from orders.cache.local import KNOWN_S, MARKER
from orders.settings import CacheSettings

_SCAN: Final = 1000  # keys in one step, which takes the server a millisecond
_STEP_S: Final = 5.0
_MARKED_S: Final = int(2 * KNOWN_S)  # by then every L1 has forgotten the older versions


def flush(settings: CacheSettings) -> int:
    """Delete all cached orders of this installation and return how many there were.

    Every L1 watches these keys and forgets its versions when it sees the marker. Raises RedisDown.
    """
    if settings.url is None:
        return 0
    prefix = f"{settings.prefix}order:"
    pattern = "".join(f"\\{letter}" if letter in "*?[]^\\" else letter for letter in prefix) + "*"
    marker = prefix.encode() + MARKER
    try:
        links = target_of(settings.url).connect(_STEP_S)
        with contextlib.ExitStack() as closing:
            for connection in links.connections.values():
                closing.callback(connection.close)
            connections = links.connections.values()
            count = sum(_flush(link, pattern, marker) for link in connections)
            _mark(connections, marker)  # last: from now on no L1 can read a lost version from Redis
            return count
    except (OSError, RedisError, hiredis.HiredisError) as error:
        raise RedisDown(f"Redis does not answer: {type(error).__name__}") from error


def _mark(connections: Collection[RedisConnection], marker: bytes) -> None:
    """Set the marker on the server that has its slot. Raises an error if all servers refuse."""
    command = pack((b"SET", marker, uuid.uuid4().hex, b"EX", _MARKED_S))
    refusals = []
    for connection in connections:
        [reply] = connection.exchange(command, 1, time.monotonic() + _STEP_S)
        if isinstance(reply, Exception):
            refusals.append(reply)
    if len(refusals) == len(connections):
        raise refusals[0]


def _flush(connection: RedisConnection, pattern: str, marker: bytes) -> int:
    count, cursor = 0, b"0"
    while True:
        scan = pack((b"SCAN", cursor, b"MATCH", pattern, b"COUNT", _SCAN))
        [reply] = connection.exchange(scan, 1, time.monotonic() + _STEP_S)
        if isinstance(reply, Exception):
            raise reply
        cursor, keys = reply[0], [key for key in reply[1] if key != marker]
        if keys:  # a command for each key: in a cluster their slots differ
            payload = b"".join(pack((b"UNLINK", key)) for key in keys)
            replies = connection.exchange(payload, len(keys), time.monotonic() + _STEP_S)
            count += replies.count(1)
        if cursor == b"0":
            return count
