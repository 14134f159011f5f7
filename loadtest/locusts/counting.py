"""Counts requests on a worker, so that the master can record them for each second.

Locust's own statistics are totals since the start, but verdicts need single seconds, as of a fault.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from loadtest.purchase import Purchase

# Two significant digits, as Locust rounds: this bounds the memory; the error is at most 5 %.
_DIGITS = 2


class RequestCounts(msgspec.Struct):
    """Requests of one name since the last report; `ms` and `statuses` count by value."""

    failed: int = 0
    statuses: dict[str, int] = {}
    ms: dict[int, int] = {}

    def note(self, status: int, took_ms: float, *, failed: bool) -> None:
        """Count a request by its status and its duration."""
        self.failed += failed
        self.statuses[str(status)] = self.statuses.get(str(status), 0) + 1
        rounded = bucket(took_ms)
        self.ms[rounded] = self.ms.get(rounded, 0) + 1


class WorkerReport(msgspec.Struct):
    """A worker's report of a second; the master sets `t` (seconds since the start)."""

    t: float = 0.0
    users: int = 0
    busy: int = 0  # journeys under way
    rss_bytes: int = 0
    worker: str = ""
    names: dict[str, RequestCounts] = {}


class Tally:
    """Requests and purchases that are not reported yet; each report empties it."""

    def __init__(self) -> None:
        self._names: dict[str, RequestCounts] = {}
        self._purchases: list[Purchase] = []
        self.busy = 0

    @contextmanager
    def journey(self) -> Iterator[None]:
        """Count a journey as under way inside the block."""
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1

    def request(self, name: str, status: int, took_ms: float, *, failed: bool) -> None:
        """Count a request under its name."""
        self._names.setdefault(name, RequestCounts()).note(status, took_ms, failed=failed)

    def purchase(self, purchase: Purchase) -> None:
        """Keep a finished purchase for the next report."""
        self._purchases.append(purchase)

    def take(self) -> tuple[dict[str, RequestCounts], Iterable[Purchase]]:
        """Return what was counted and clear it."""
        batch = self._names, self._purchases
        self._names, self._purchases = {}, []
        return batch


def bucket(took_ms: float) -> int:
    """Round to two significant digits."""
    rounded_ms = round(took_ms)
    return int(round(rounded_ms, _DIGITS - len(str(rounded_ms))))


def to_builtins(value: object) -> Any:
    """Turn structs into types that Locust's messages can contain."""
    return msgspec.to_builtins(value, str_keys=True)
