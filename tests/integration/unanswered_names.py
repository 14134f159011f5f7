"""Time how long the order path waits for names that no server looks up; print JSON.

To be run where the name server does not answer. Nothing here is a test: test_name_server.py reads
what is printed.
"""

import json
import sys
import time
from collections.abc import Callable

import msgspec

from orders import cli
from orders.cache.client import Redis
from orders.database.connection import connect, sessions
from orders.database.pool import Pool
from orders.errors import OrdersError
from orders.settings import CacheSettings, DatabaseSettings
from orders.upstream.http import Upstream
from orders.upstream.policy import UpstreamPolicy
from orders.upstream.transport import HttpRequest

NAME = "somewhere.orders"
DATABASE = DatabaseSettings(
    url=f"postgresql://orders:secret@{NAME},other.orders:5432/orders", connect_timeout_s=2
)


def took_s(action: Callable[[], object]) -> float:
    """Return how long something took that has to fail."""
    began_s = time.monotonic()
    try:
        action()
    except OrdersError:
        return time.monotonic() - began_s
    raise AssertionError("a name was looked up")


def waits() -> dict[str, float]:
    """Return the seconds that each part waited."""
    pool = Pool(DATABASE.url, DATABASE, "test")
    pool.open()
    redis = Redis(CacheSettings(url=f"redis://{NAME}:6379"))
    policy = msgspec.structs.replace(UpstreamPolicy(), deadline_s=1, try_timeout_s=1, retries=0)
    upstream = Upstream("inventory", f"http://{NAME}:80", policy)
    ask = HttpRequest("GET", "/stock/1", "/stock/{id}")
    try:
        return {
            "session": took_s(lambda: connect(sessions(DATABASE), DATABASE, "test")),
            "pool": took_s(pool.ping),
            "pool again": took_s(pool.ping),
            "redis": took_s(lambda: redis.call(b"PING")),
            "upstream": took_s(lambda: upstream.call(ask, lambda reply: reply)),
        }
    finally:
        upstream.close()
        pool.close()


def look_up_s() -> float:
    """Return how long the C library itself takes to give up, in a process of ours."""
    import socket

    began_s = time.monotonic()
    try:
        socket.getaddrinfo(NAME, 5672)
    except socket.gaierror:
        return time.monotonic() - began_s
    raise AssertionError("a name was looked up")


if __name__ == "__main__":
    cli.limit_look_ups()
    if sys.argv[1:] == ["library"]:
        print(json.dumps({"library": look_up_s()}))  # noqa: T201
    else:
        print(json.dumps(waits()))  # noqa: T201
