"""Routing of reads: to the replica if the answer cannot differ noticeably.

A replica is read from while it provably is at most `replica_max_lag_s` behind. A user who wrote a
moment ago is sent to the primary by the caller (`own_writes=True`). All users are, while some
process could not mark its writers (`unmarked.py`). A row the replica does not
have is looked for on the primary before it is called missing.
"""

import collections
import functools
import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import psycopg
import structlog
from psycopg.rows import TupleRow

from orders.database.connection import Connection, connect, primary, replica
from orders.database.pool import Pool
from orders.database.statements import Row, statement
from orders.errors import Transient
from orders.settings import DatabaseSettings
from orders.telemetry.metrics import DB_ROUTE, Tally

_SAMPLE_S: Final = 0.1
_APPLICATION: Final = "orders-replica-lag"
_log = structlog.get_logger()


@functools.cache
def _routed(target: str, reason: str) -> Tally:
    """Return the counter of one route; `labels` costs more than the increment."""
    return Tally(DB_ROUTE.labels(target, reason))


class ReplicaLag:
    """How far a replica is behind, measured by comparing its replay position with the primary's.

    The age of the last replayed transaction is no measure: it grows on an idle system, and does not
    grow on a replica that has lost its primary.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        url: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._primary = primary(settings)
        self._replica = replica(url or settings.replica_urls[0])
        self._clock = clock
        self._seen: collections.deque[tuple[float, int]] = collections.deque(maxlen=600)
        self._caught_up_to = float("-inf")
        self._orphaned_at: int | None = None  # the position at which it was ahead of the primary
        # Whether some process could not mark its writers; as old as the lag that was measured last.
        self.unmarked_writes = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="replica-lag", daemon=True)

    def start(self) -> None:
        """Start to measure. Call it after fork: it starts a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread after its current measurement."""
        self._stop.set()

    def lag_s(self) -> float:
        """Seconds the replica may be behind; infinite while it is not known."""
        return self._clock() - self._caught_up_to

    def observe(self, asked_at: float, primary: int, replica: int) -> None:
        """Record a pair of write positions (bytes); the primary's was read at `asked_at`.

        The replica's was read first, so it cannot be ahead of a primary that it follows. A replica
        that is ahead was left behind by a promotion, and has data that the primary lacks. It is
        not used until its position changes, even when the primary has reached that position.
        """
        if replica > primary:
            self._orphaned_at = replica
        elif self._orphaned_at != replica:
            self._orphaned_at = None
        if self._orphaned_at is not None:
            self._seen.clear()
            self._caught_up_to = float("-inf")
            return
        self._seen.append((asked_at, primary))
        while self._seen and self._seen[0][1] <= replica:
            self._caught_up_to = self._seen.popleft()[0]

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                self._sample_until_broken()
            except (psycopg.Error, Transient) as error:
                _log.debug("replica_lag.unknown", error=type(error).__name__)
            self._stop.wait(1)

    def _sample_until_broken(self) -> None:
        with (
            connect(self._primary, self._settings, _APPLICATION) as source,
            connect(self._replica, self._settings, _APPLICATION) as copy,
        ):
            while not self._stop.wait(_SAMPLE_S):
                (replayed,) = _sample(copy, "sample_replica")
                asked_at = self._clock()
                written, unmarked = _sample(source, "sample_primary")
                self.unmarked_writes = bool(unmarked)
                self.observe(asked_at, _position(written), _position(replayed))


def _sample(connection: Connection, name: str) -> TupleRow:
    return connection.execute(statement(name)).fetchone() or ()


def _position(value: Any) -> int:
    return -1 if value is None else int(value)


class Replica(msgspec.Struct, frozen=True, eq=False):
    """A replica, which is read from while it keeps up."""

    pool: Pool
    lag: ReplicaLag


class Reads:
    """Runs reading statements on the right server: in turn on the replicas that keep up."""

    def __init__(
        self, primary: Pool, replica: Pool | None, lag: ReplicaLag | None, max_lag_s: float
    ) -> None:
        self._primary, self._max_lag_s = primary, max_lag_s
        self._replicas = [Replica(replica, lag)] if replica is not None and lag is not None else []
        self._turns = itertools.count()

    @classmethod
    def among(cls, primary: Pool, replicas: Sequence[Replica], max_lag_s: float) -> "Reads":
        """Return a Reads over any number of replicas."""
        reads = cls(primary, None, None, max_lag_s)
        reads._replicas = list(replicas)
        return reads

    def rows(self, name: str, arguments: Mapping[str, Any], *, own_writes: bool) -> list[Row]:
        """Run a statement whose result may lack the newest rows, unless `own_writes` is set."""
        replica = None if own_writes else self._usable()
        if replica is None:
            return self._on_primary(name, arguments, "own_writes" if own_writes else "no_replica")
        if replica.lag.unmarked_writes:
            return self._on_primary(name, arguments, "unmarked_writes")
        try:
            return self._on_replica(replica.pool, name, arguments)
        except Transient:
            return self._on_primary(name, arguments, "replica_failed")

    def one(self, name: str, arguments: Mapping[str, Any]) -> Row | None:
        """Find a row; on the primary if the replica lacks it."""
        replica = self._usable()
        reason = "no_replica"
        if replica is not None:
            try:
                rows = self._on_replica(replica.pool, name, arguments)
            except Transient:
                rows, reason = [], "replica_failed"
            else:
                reason = "replica_miss"
            if rows:
                return rows[0]
        rows = self._on_primary(name, arguments, reason)
        return rows[0] if rows else None

    def _usable(self) -> Replica | None:
        usable = [replica for replica in self._replicas if replica.lag.lag_s() <= self._max_lag_s]
        return usable[next(self._turns) % len(usable)] if usable else None

    def _on_primary(self, name: str, arguments: Mapping[str, Any], reason: str) -> list[Row]:
        _routed("primary", reason).inc()
        return self._primary.read(name, arguments)

    def _on_replica(self, replica: Pool, name: str, arguments: Mapping[str, Any]) -> list[Row]:
        rows = replica.execute(name, arguments)
        _routed("replica", "fresh").inc()
        return rows
