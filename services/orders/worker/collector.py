"""Gauges that are counted in the database. Only the elected worker counts and exports them."""

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

import msgspec
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as PrometheusCollector

from orders.database.pool import Pool
from orders.database.statements import ServerAway
from orders.database.stuck import count_stuck
from orders.domain.integrity import Breach
from orders.domain.lifecycle import ACTIVE, TERMINAL, Status
from orders.errors import Transient

_COUNTED: Final = 200_000  # orders; counting a hundred million would cost too much for a gauge
NAN: Final = float("nan")
_ENDED_EVERY: Final = 6  # rounds: ended orders take longer to count, and no alert needs them

_ENDED: Final = sorted(TERMINAL)


class _Count(NamedTuple):
    """Counts some gauges with `take`; `lose` returns them as NaN if they cannot be counted."""

    take: Callable[[Pool], list[Metric]]
    lose: Callable[[], list[Metric]]


class Collector(PrometheusCollector):
    """Exports the latest counts: none if this process does not count, NaN if counting failed."""

    def __init__(self, lag_s: Callable[[], float] | None = None) -> None:
        self._lag_s = lag_s
        self._lock = threading.Lock()
        self._rounds = 0
        self._ended: dict[str, float] = dict.fromkeys(_ENDED, NAN)
        self._families: list[Metric] = []
        # Separate counts: if one exceeds the server's time limit, the others are still exported.
        self._counts: list[_Count] = [
            _Count(self._count_ended, self._lose_ended),
            _Count(self._count_unfinished, self._lose_unfinished),
            _Count(_count_unknown, lambda: [_unknown_gauge(NAN), _unknown_age_gauge(NAN)]),
            _Count(
                lambda pool: [_stuck_gauge(dict.fromkeys(map(str, Status), 0) | count_stuck(pool))],
                lambda: [_stuck_gauge(dict.fromkeys(Status, NAN))],
            ),
            _Count(
                _count_violations,
                lambda: [_violation_gauge(dict.fromkeys(Breach, NAN)), _reconciled_gauge(NAN)],
            ),
        ]

    def collect_from(self, pool: Pool, must_end: Callable[[], bool] = lambda: False) -> None:
        """Count everything again. Stop if `must_end`, which is checked before each count, is true.

        A count that fails gives NaN, and the others go on. Then raises the Transient of the last
        failure. Raises at once if PostgreSQL is unavailable.
        """
        failure: Transient | None = None
        families: list[Metric] = []
        for count in self._counts:
            if must_end():
                return
            try:
                families += count.take(pool)
            except ServerAway:
                self.lose()
                raise
            except Transient as error:
                failure = error
                families += count.lose()
        self._rounds += 1
        with self._lock:
            self._families = [*families, self._lag()]
        if failure is not None:
            raise failure

    def lose(self) -> None:
        """Export NaN for counts that this process exported and that are unknown now.

        If the series disappeared instead, they could not show the outage.
        """
        self._rounds = 0
        families = [family for count in self._counts for family in count.lose()]
        with self._lock:
            if self._families:
                self._families = [*families, self._lag()]

    def clear(self) -> None:
        """Export no counts: another process exports them now, or this one cannot count."""
        with self._lock:
            self._families, self._rounds = [], 0

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, declared even without samples."""
        with self._lock:
            families = self._families
        yield from families or [
            _state_gauge({}), _age_gauge({}), _unknown_gauge(None), _unknown_age_gauge(None),
            _stuck_gauge({}), _violation_gauge({}), _reconciled_gauge(None),
            _replica_lag_gauge(None),
        ]  # fmt: skip

    def _count_ended(self, pool: Pool) -> list[Metric]:
        if self._rounds % _ENDED_EVERY == 0:
            self._ended = dict.fromkeys(_ENDED, 0.0) | _read_ended(pool)
        return []  # `_count_unfinished` exports them: the status is a label of its metric

    def _lose_ended(self) -> list[Metric]:
        self._ended = dict.fromkeys(_ENDED, NAN)
        return []

    def _count_unfinished(self, pool: Pool) -> list[Metric]:
        rows = pool.execute("count_unfinished", {})
        counts = dict.fromkeys(map(str, ACTIVE), 0.0) | {row[0]: row[1] for row in rows}
        ages = dict.fromkeys(map(str, sorted(ACTIVE)), 0.0) | {row[0]: row[2] for row in rows}
        return [_state_gauge(self._by_status(counts)), _age_gauge(ages)]

    def _lose_unfinished(self) -> list[Metric]:
        values = dict.fromkeys(map(str, sorted(ACTIVE)), NAN)
        return [_state_gauge(self._by_status(values)), _age_gauge(values)]

    def _by_status(self, active_counts: dict[str, float]) -> dict[str, float]:
        counts = self._ended | active_counts
        return {status: counts[status] for status in Status}

    def _lag(self) -> Metric:
        return _replica_lag_gauge(self._lag_s() if self._lag_s else None)


def _read_ended(pool: Pool) -> dict[str, float]:
    """Return the number of ended orders by status; in a large table, an estimate.

    SQL does not decide this, because PostgreSQL starts parallel workers even for a branch that
    never runs.
    """
    [(orders,)] = pool.execute("estimate_orders", {})
    if orders < _COUNTED:
        return dict(pool.execute("count_ended", {}))
    return dict(pool.execute("estimate_ended", {"orders": orders}))


def _count_unknown(pool: Pool) -> list[Metric]:
    [(count, age_s)] = pool.execute("count_unknown_payments", {})
    return [_unknown_gauge(count), _unknown_age_gauge(age_s)]


def _count_violations(pool: Pool) -> list[Metric]:
    [(reconciled_at_s, cases)] = pool.execute("count_violations", {})
    violations = msgspec.json.decode(cases, type=dict[str, int])
    return [
        _violation_gauge(dict.fromkeys(map(str, Breach), 0) | violations),
        _reconciled_gauge(reconciled_at_s),
    ]


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """Return a gauge with one sample for each value of its label."""
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([str(key)], value)
    return family


def _state_gauge(counts: Mapping[str, float]) -> Metric:
    return _gauge("orders_in_state", "Orders by status.", "status", counts)


def _age_gauge(ages: Mapping[str, float]) -> Metric:
    text = "Longest time that an order in this status has been in it; 0: no order is."
    return _gauge("orders_oldest_age_seconds", text, "status", ages)


def _unknown_gauge(count: float | None) -> Metric:
    text = "Payment attempts whose outcome is unknown for more than 15 s."
    return GaugeMetricFamily("payment_unknown", text, value=count)


def _unknown_age_gauge(age_s: float | None) -> Metric:
    text = "Longest time that the outcome of such a payment attempt has been unknown; 0: none is."
    return GaugeMetricFamily("payment_unknown_oldest_age_seconds", text, value=age_s)


def _stuck_gauge(counts: Mapping[str, float]) -> Metric:
    text = "Orders that need a person, by status; `orders stuck` lists them."
    return _gauge("orders_stuck", text, "status", counts)


def _violation_gauge(counts: Mapping[str, float]) -> Metric:
    text = "Violations that reconciliation found and that still exist, by kind."
    return _gauge("orders_integrity_violations", text, "kind", counts)


def _reconciled_gauge(at_s: float | None) -> Metric:
    text = "When reconciliation last completed, in unix time; absent: never."
    return GaugeMetricFamily("orders_reconcile_last_success_timestamp_seconds", text, value=at_s)


def _replica_lag_gauge(lag_s: float | None) -> Metric:
    text = "Lag of the read replica that is furthest behind; infinite while unknown."
    return GaugeMetricFamily("db_replica_lag_seconds", text, value=lag_s)
