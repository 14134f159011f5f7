"""Finds the primary of a service behind Sentinels, and the primaries of a cluster."""

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Final

from redis import Sentinel  # before the modules below: it runs the `__init__`, which they need
from redis.cluster import ClusterNode, NodesManager
from redis.crc import REDIS_CLUSTER_HASH_SLOTS
from redis.exceptions import RedisClusterException, RedisError
from redis.sentinel import MasterNotFoundError

from orders import verified
from orders.cache.address import Login
from orders.cache.connection import Connected, RedisConnection

_WATCH_S: Final = 1.0  # every reader must see a change within this time
_REUSE_S: Final = 0.2  # threads that connect within this time ask the cluster once


class Sentinels:
    """The current primary of a service."""

    def __init__(
        self,
        login: Login,
        sentinels: Sequence[tuple[str, int]],
        credentials: Mapping[str, str | None],
        service: str,
    ) -> None:
        """Log in to the primary with `login`, and to its Sentinels with `credentials`."""
        arguments = {**login.others(), **credentials, "retry": None}
        self._sentinel = Sentinel(sentinels, sentinel_kwargs=arguments)  # type: ignore[no-untyped-call]
        self._login, self._service = login, service
        self._primaries: frozenset[str] = frozenset()
        self._asked_at = float("-inf")

    def primaries(self) -> frozenset[str]:
        """Ask the Sentinels once a second: a replaced primary may go on serving for 10 s."""
        if time.monotonic() - self._asked_at > _WATCH_S:
            self._asked_at = time.monotonic()
            with contextlib.suppress(RedisError):  # without Sentinels the primary still serves
                self._primary()
        return self._primaries

    def connect(self, timeout_s: float, *, protocol: int = 2) -> Connected:
        """Ask the Sentinels one after the other, then connect."""
        host, port = self._primary()
        connection = self._login.connect(timeout_s, protocol, host=host, port=port)
        return Connected({f"{host}:{port}": connection}, None)

    def _primary(self) -> tuple[str, int]:
        try:
            host, port = self._sentinel.discover_master(self._service)  # type: ignore[no-untyped-call]
        except MasterNotFoundError as error:
            if "SSL" in str(error):  # redis-py keeps only the text of the cause
                raise error from self._refusal()
            raise
        self._asked_at = time.monotonic()
        self._primaries = frozenset({f"{host}:{port}"})
        return host, port

    def _refusal(self) -> RedisError | None:
        """Ask once more, to return the error that says why a certificate was refused."""
        for sentinel in self._sentinel.sentinels:
            try:
                sentinel.sentinel_masters()
            except RedisError as error:
                if verified.advice(error) is not None:
                    return error
        return None


class Cluster:
    """The primaries of a cluster, each with its slots. All of them are needed."""

    def __init__(self, login: Login, seeds: Sequence[tuple[str, int]]) -> None:
        self._login, self._seeds = login, seeds
        self._known: set[tuple[str, int]] = set()
        self._slots: list[str] = []
        self._asked_at = float("-inf")
        self._lock = threading.Lock()
        self._primaries: frozenset[str] = frozenset()

    def primaries(self) -> frozenset[str]:
        """Return what the last `connect` of any thread found."""
        return self._primaries

    def connect(self, timeout_s: float, *, protocol: int = 2) -> Connected:
        """Ask the nodes for the slots, then connect to all primaries."""
        slots = self._current_slots()
        connections: dict[str, RedisConnection] = {}
        try:
            for address in set(slots):
                host, _, port = address.rpartition(":")
                connections[address] = self._login.connect(
                    timeout_s, protocol, host=host, port=int(port)
                )
        except BaseException:
            for connection in connections.values():
                connection.close()
            self._asked_at = float("-inf")
            raise
        self._primaries = frozenset(connections)
        return Connected(connections, slots)

    def _current_slots(self) -> list[str]:
        with self._lock:
            if time.monotonic() - self._asked_at > _REUSE_S:
                self._slots = self._ask()
                self._asked_at = time.monotonic()
            return list(self._slots)

    def _ask(self) -> list[str]:
        """Query the first host that answers: those in the URL, then the previous nodes."""
        nodes = [ClusterNode(*address) for address in {*self._seeds, *self._known}]  # type: ignore[no-untyped-call]
        try:
            manager = NodesManager(nodes, require_full_coverage=True, **self._login.others())
        except RedisClusterException as error:
            raise ConnectionError(str(error)) from error
        self._known = {(node.host, int(node.port)) for node in manager.nodes_cache.values()}
        slots = [manager.slots_cache[slot][0].name for slot in range(REDIS_CLUSTER_HASH_SLOTS)]
        manager.close()
        return slots
