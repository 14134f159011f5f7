"""Forgets every cached order: after a promotion some of them never happened."""

import contextlib
import time
from typing import Final

import hiredis
from redis.exceptions import RedisError

from orders.cache.address import place_of
from orders.cache.client import RedisDown
from orders.cache.connection import Connection, pack
from orders.settings import CacheSettings

_SCAN: Final = 1000  # keys looked at in one step: a millisecond of the server
_STEP_S: Final = 5.0


def flush(settings: CacheSettings) -> int:
    """Delete all cached orders of this installation and return how many there were.

    Local caches follow by themselves: they watch these keys. Raises RedisDown.
    """
    if settings.url is None:
        return 0
    pattern = f"{_escaped(settings.prefix)}order:*"
    try:
        links = place_of(settings.url).connect(_STEP_S)
        with contextlib.ExitStack() as closing:
            for connection in links.connections.values():
                closing.callback(connection.close)
            return sum(_flush(link, pattern) for link in links.connections.values())
    except (OSError, RedisError, hiredis.HiredisError) as error:
        raise RedisDown(f"Redis does not answer: {type(error).__name__}") from error


def _flush(connection: Connection, pattern: str) -> int:
    deleted, cursor = 0, b"0"
    while True:
        scan = pack((b"SCAN", cursor, b"MATCH", pattern, b"COUNT", _SCAN))
        [reply] = connection.exchange(scan, 1, time.monotonic() + _STEP_S)
        if isinstance(reply, Exception):
            raise reply
        cursor, keys = reply
        if keys:  # one command a key: in a cluster they need not share a slot
            payload = b"".join(pack((b"UNLINK", key)) for key in keys)
            replies = connection.exchange(payload, len(keys), time.monotonic() + _STEP_S)
            deleted += replies.count(1)
        if cursor == b"0":
            return deleted


def _escaped(prefix: str) -> str:
    return "".join(f"\\{letter}" if letter in "*?[]^\\" else letter for letter in prefix)
