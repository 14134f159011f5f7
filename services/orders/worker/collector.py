"""The gauges that are counted in the database; exported by the one worker that counts them."""

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as PrometheusCollector

from orders.database.pool import Pool
from orders.database.stuck import count_stuck
from orders.domain.integrity import Breach
from orders.domain.lifecycle import ACTIVE, Status

_COUNTED: Final = 200_000  # orders; a count of a hundred million is no price for a gauge
NAN: Final = float("nan")
_ENDED_EVERY: Final = 6  # rounds: ended orders are dearer to count and change nothing for an alert


class Collector(PrometheusCollector):
    """Holds the latest counts: empty in a process that does not count, NaN in one that cannot."""

    def __init__(self, lag_s: Callable[[], float] | None = None) -> None:
        self._lag_s = lag_s
        self._lock = threading.Lock()
        self._rounds = 0
        self._ended: dict[str, int] = {}
        self._families: list[Metric] = []

    def collect_from(self, pool: Pool) -> None:
        """Count anew. Raises Transient when PostgreSQL is not to be had."""
        if self._rounds % _ENDED_EVERY == 0:
            self._ended = _count_ended(pool)
        self._rounds += 1
        unfinished = pool.execute("count_unfinished", {})
        counts = dict.fromkeys(Status, 0) | self._ended | {row[0]: row[1] for row in unfinished}
        ages = dict.fromkeys(sorted(ACTIVE), 0.0) | {row[0]: row[2] for row in unfinished}
        unknown, unknown_age_s = pool.execute("count_unknown_payments", {})[0]
        stuck = dict.fromkeys(Status, 0) | count_stuck(pool)
        reconciled_at_s, cases = pool.execute("count_violations", {})[0]
        violations = msgspec.json.decode(cases, type=dict[str, int])
        lag_s = self._lag_s() if self._lag_s else None
        with self._lock:
            self._families = [
                _in_state(counts),
                _ages(ages),
                _unknown(unknown),
                _unknown_age(unknown_age_s),
                _stuck(stuck),
                _violations(dict.fromkeys(map(str, Breach), 0) | violations),
                _reconciled(reconciled_at_s),
                _lag(lag_s),
            ]

    def lose(self) -> None:
        """Forget the counts: this process exported them, and they are not known now.

        NaN, so that no series vanishes with the server whose outage it should show.
        """
        with self._lock:
            self._rounds = 0
            if self._families:
                self._families = [
                    _in_state(dict.fromkeys(Status, NAN)),
                    _ages(dict.fromkeys(sorted(ACTIVE), NAN)),
                    _unknown(NAN),
                    _unknown_age(NAN),
                    _stuck(dict.fromkeys(Status, NAN)),
                    _violations(dict.fromkeys(Breach, NAN)),
                    _reconciled(NAN),
                    _lag(self._lag_s() if self._lag_s else None),
                ]

    def clear(self) -> None:
        """Forget the counts: another process exports them now, or nobody can."""
        with self._lock:
            self._families, self._rounds = [], 0

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, declared even while there is nothing to say."""
        with self._lock:
            families = self._families
        yield from families or [
            _in_state({}), _ages({}), _unknown(None), _unknown_age(None), _stuck({}),
            _violations({}), _reconciled(None), _lag(None),
        ]  # fmt: skip


def _count_ended(pool: Pool) -> dict[str, int]:
    """Count ended orders; a large table is estimated.

    Decided here, not in SQL: PostgreSQL starts parallel workers for a branch that never runs.
    """
    [(orders,)] = pool.execute("estimate_orders", {})
    if orders < _COUNTED:
        return dict(pool.execute("count_ended", {}))
    return dict(pool.execute("estimate_ended", {"orders": orders}))


def _labelled(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """Return a gauge with one sample for each value of its label."""
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([str(key)], value)
    return family


def _in_state(counts: Mapping[str, float]) -> Metric:
    return _labelled("orders_in_state", "Orders by status.", "status", counts)


def _ages(ages: Mapping[str, float]) -> Metric:
    text = "How long the order longest in this status has been there; 0: none is."
    return _labelled("orders_oldest_age_seconds", text, "status", ages)


def _unknown(count: float | None) -> Metric:
    text = "Payment attempts whose outcome is unknown for more than 15 s."
    return GaugeMetricFamily("payment_unknown", text, value=count)


def _unknown_age(age_s: float | None) -> Metric:
    text = "How long the outcome of the oldest of these attempts has been unknown; 0: none is."
    return GaugeMetricFamily("payment_unknown_oldest_age_seconds", text, value=age_s)


def _stuck(counts: Mapping[str, float]) -> Metric:
    text = "Orders that need a person, by status: `orders stuck` lists them."
    return _labelled("orders_stuck", text, "status", counts)


def _violations(counts: Mapping[str, float]) -> Metric:
    text = "Orders that reconciliation found in breach of integrity and that still are."
    return _labelled("orders_integrity_violations", text, "kind", counts)


def _reconciled(at_s: float | None) -> Metric:
    text = "When reconciliation last came to its end, in unix time; absent: never."
    return GaugeMetricFamily("orders_reconcile_last_success_timestamp_seconds", text, value=at_s)


def _lag(lag_s: float | None) -> Metric:
    text = "How far the last of the read replicas is behind; infinite while it is not known."
    return GaugeMetricFamily("db_replica_lag_seconds", text, value=lag_s)
