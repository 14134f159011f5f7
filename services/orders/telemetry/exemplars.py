"""Exemplars for a service with several processes: the trace behind a histogram's bucket.

The client library keeps exemplars only if one process exports its own metrics. Here each process
keeps its newest ones in a file beside its metrics, and the process that sums the metrics adds them.
"""

import bisect
import mmap
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

_PREFIX: Final = "exemplars-"
# Buckets of a process that can have an exemplar. A line is about 200 bytes.
_SLOTS: Final = 128
_SLOT_BYTES: Final = 320
# Replace a bucket's exemplar at most this often: Prometheus scrapes every 15 to 30 s.
_EVERY_S: Final = 1.0

Labels = tuple[tuple[str, str], ...]
Key = tuple[str, frozenset[tuple[str, str]]]


class ExemplarLine(msgspec.Struct, frozen=True):
    """An exemplar in the file; `bucket` is the bound as Prometheus writes it."""

    metric: str
    labels: Labels
    bucket: str
    value: float
    trace_id: str
    at: float

    @property
    def key(self) -> Key:
        """Return the key of its sample."""
        return f"{self.metric}_bucket", frozenset((*self.labels, ("le", self.bucket)))


class Exemplars:
    """Writes this process's exemplars: one line for each bucket, the newest."""

    def __init__(self, folder: Path, pid: int) -> None:
        with (folder / f"{_PREFIX}{pid}").open("w+b") as file:
            file.truncate(_SLOTS * _SLOT_BYTES)
            self._map = mmap.mmap(file.fileno(), 0)
        self._lock = threading.Lock()
        self._slots: dict[tuple[str, Labels, str], int] = {}
        self._written_at: dict[int, float] = {}

    def note(
        self, metric: str, labels: Labels, bounds: Sequence[float], value: float, trace_id: str
    ) -> None:
        """Record the trace of an observation; costs microseconds, for sampled requests only."""
        now, index = time.time(), bisect.bisect_left(bounds, value)
        bound = bounds[index] if index < len(bounds) else float("inf")
        bucket: str = floatToGoString(bound)  # type: ignore[no-untyped-call] # no types
        with self._lock:
            slot = self._slots.setdefault((metric, labels, bucket), len(self._slots))
            if slot >= _SLOTS or now - self._written_at.get(slot, 0.0) < _EVERY_S:
                return
            self._written_at[slot] = now
            line = msgspec.json.encode(ExemplarLine(metric, labels, bucket, value, trace_id, now))
            if len(line) <= _SLOT_BYTES:
                begin = slot * _SLOT_BYTES
                self._map[begin : begin + _SLOT_BYTES] = line.ljust(_SLOT_BYTES)


def read(folder: Path) -> dict[Key, ExemplarLine]:
    """Return the newest exemplar of each bucket over all processes."""
    exemplars: dict[Key, ExemplarLine] = {}
    for path in folder.glob(f"{_PREFIX}*"):
        for line in _lines(path):
            current = exemplars.get(line.key)
            if current is None or current.at < line.at:
                exemplars[line.key] = line
    return exemplars


def _lines(path: Path) -> Iterable[ExemplarLine]:
    with suppress(FileNotFoundError):  # of a process that has just ended
        raw = path.read_bytes()
        for begin in range(0, len(raw), _SLOT_BYTES):
            with suppress(msgspec.MsgspecError):  # empty, or just being written
                yield msgspec.json.decode(raw[begin : begin + _SLOT_BYTES], type=ExemplarLine)


def attach(metric: Metric, exemplars: dict[Key, ExemplarLine]) -> None:
    """Add exemplars to the samples of a metric."""
    if metric.type != "histogram":
        return
    for number, sample in enumerate(metric.samples):
        line = exemplars.get((sample.name, frozenset(sample.labels.items())))
        if line is not None:
            exemplar = Exemplar({"trace_id": line.trace_id}, line.value, line.at)
            metric.samples[number] = sample._replace(exemplar=exemplar)


def forget(folder: Path, pid: int) -> None:
    """Delete the exemplars of a process that has ended."""
    (folder / f"{_PREFIX}{pid}").unlink(missing_ok=True)
