"""Probes: whether the process is alive, started, ready and healthy.

Anyone who can reach the port sees the answers. So they contain names and short reasons, never
addresses, users or queries. The whole error is logged once, when a check starts to fail.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

import msgspec
import structlog

from orders.errors import OrdersError
from orders.watch import Watch

# A result is reused for this long, so that probes and scrapers cannot overload a dependency.
FRESH_S: Final = 1.0

_log = structlog.get_logger(__name__)


class LivenessFailed(OrdersError):
    """Restart the process: it makes no progress."""


class State(Protocol):
    """The stage of the process, set by the process and read by the probes."""

    @property
    def started(self) -> bool:
        """Whether the start has finished."""

    @property
    def draining(self) -> bool:
        """Whether the process is shutting down."""

    def check_progress(self) -> None:
        """Raise LivenessFailed if the process hangs."""


class ProcessState:
    """The state of a process that probes itself, from another thread."""

    def __init__(self, stalled_after_s: float) -> None:
        self._stalled_after_s = stalled_after_s
        self._beat_at = time.monotonic()
        self._watched: list[tuple[Watch, float]] = []
        self.started = False
        self.draining = False

    def beat(self) -> None:
        """Record that the main loop runs; call it more often than every `stalled_after_s`."""
        self._beat_at = time.monotonic()

    def start(self) -> None:
        """Record that the start has finished."""
        self.started = True
        self.beat()

    def drain(self) -> None:
        """Make readiness false until the process ends."""
        self.draining = True

    def watch(self, progress: Watch, stalled_after_s: float) -> None:
        """Also check the progress of these threads."""
        self._watched.append((progress, stalled_after_s))

    def check_progress(self) -> None:
        """Raise LivenessFailed if the last beat is too old, or work makes no progress."""
        silent_s = time.monotonic() - self._beat_at
        if silent_s > self._stalled_after_s:
            raise LivenessFailed(f"no progress for {silent_s:.0f} s")
        for progress, stalled_after_s in self._watched:
            if (silent_s := progress.silent_s()) > stalled_after_s:
                raise LivenessFailed(f"no progress of {progress.name} for {silent_s:.0f} s")


class Check(msgspec.Struct, frozen=True):
    """A dependency and its test: `test` returns, or raises the error.

    A critical check affects readiness and health; with `only_readiness`, readiness only. `budget_s`
    is how long a probe waits. A failure that is `forgiven` does not affect readiness yet: otherwise
    a shared dependency would take all replicas out of service at once.
    """

    name: str
    test: Callable[[], None]
    critical: bool = True
    only_readiness: bool = False
    budget_s: float = 1.0
    forgiven: Callable[[], bool] = bool


class Result(msgspec.Struct, frozen=True):
    """The result of a check; `reason` is safe to show, and empty if it passed."""

    name: str
    critical: bool
    reason: str = ""
    took_s: float = 0.0
    only_readiness: bool = False
    forgiven: bool = False

    @property
    def passed(self) -> bool:
        """Whether the dependency answered."""
        return not self.reason


class Checks:
    """Run checks in parallel, within their budgets, and share fresh results. Thread-safe."""

    def __init__(self, checks: Iterable[Check], *, fresh_s: float = FRESH_S) -> None:
        self._trials = [_Trial(check) for check in checks]
        self._fresh_s = fresh_s
        self._lock = threading.Lock()
        self._results: list[Result] = []
        self._done_at = float("-inf")

    def results(self) -> Sequence[Result]:
        """Return a result for each check, at most `fresh_s` old."""
        with self._lock:  # a caller that waited here gets the fresh results
            if time.monotonic() - self._done_at >= self._fresh_s:
                for trial in self._trials:
                    trial.begin()
                self._results = [trial.result() for trial in self._trials]
                self._done_at = time.monotonic()
            return self._results


class _Trial:
    """One check, which runs at most once at a time: a dependency that hangs costs one thread."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._done = threading.Event()
        self._done.set()
        self._began_at = self._ended_at = 0.0
        self._error: BaseException | None = None
        self._failing = False

    def begin(self) -> None:
        if self._done.is_set():
            self._done.clear()
            self._began_at = time.monotonic()
            threading.Thread(
                target=self._run, name=f"check-{self._check.name}", daemon=True
            ).start()

    def _run(self) -> None:
        self._error = None
        try:
            self._check.test()
        except Exception as error:  # noqa: BLE001 any exception is the result of the check
            self._error = error
        self._ended_at = time.monotonic()
        self._done.set()

    def result(self) -> Result:
        check = self._check
        left_s = check.budget_s - (time.monotonic() - self._began_at)
        is_done = self._done.wait(max(0.0, left_s))
        error = self._error if is_done else TimeoutError(f"no answer within {check.budget_s:g} s")
        took_s = (self._ended_at if is_done else time.monotonic()) - self._began_at
        self._log_change(error)
        return Result(
            check.name,
            check.critical,
            reason(error) if error else "",
            took_s,
            check.only_readiness,
            forgiven=error is not None and check.forgiven(),
        )

    def _log_change(self, error: BaseException | None) -> None:
        if error and not self._failing:
            _log.warning("check.failed", check=self._check.name, error=repr(error))
        elif self._failing and not error:
            _log.info("check.recovered", check=self._check.name)
        self._failing = error is not None


def reason(error: BaseException) -> str:
    """Return a short reason for an error, without its details."""
    if isinstance(error, OrdersError):
        return str(error)  # by definition safe to show
    for cause in _chain(error):
        if isinstance(cause, TimeoutError):
            return "timed out"
        if isinstance(cause, socket.gaierror):
            return "unknown host"
        if isinstance(cause, OSError) and cause.errno and cause.errno > 0:
            return os.strerror(cause.errno).lower()
    return type(error).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(8):  # a chain can be a ring
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


class ProbeReport(msgspec.Struct, frozen=True):
    """An answer: an HTTP status and a line for each check."""

    status: int
    lines: Sequence[str]


def livez(state: State) -> ProbeReport:
    """Fail when only a restart helps: no dependency can make it fail."""
    return _report("livez", [_progress(state)])


def startupz(state: State) -> ProbeReport:
    """Pass once the start has finished."""
    return _report("startupz", [_condition("started", "not yet", holds=state.started)])


def readyz(state: State, checks: Checks) -> ProbeReport:
    """Pass if the process can take work. A draining process fails without running the checks."""
    if state.draining:
        return _report("readyz", [_condition("serving", "shutting down", holds=False)])
    start_result = _condition("started", "not yet", holds=state.started)
    return _report("readyz", [start_result, _progress(state), *checks.results()])


def health(checks: Checks) -> tuple[int, dict[str, Any]]:
    """Return status and body of `/health`: 503 only if a critical dependency fails."""
    results = [result for result in checks.results() if not result.only_readiness]
    failures = [result for result in results if not result.passed]
    is_unhealthy = any(result.critical for result in failures)
    health = "Unhealthy" if is_unhealthy else "Degraded" if failures else "Healthy"
    bodies = {result.name: _health_part(result) for result in results}
    return 503 if is_unhealthy else 200, {"status": health, "checks": bodies}


def _health_part(result: Result) -> dict[str, Any]:
    body: dict[str, Any] = {"status": "Healthy", "durationMs": round(result.took_s * 1000, 1)}
    if not result.passed:
        body |= {"status": "Unhealthy" if result.critical else "Degraded", "error": result.reason}
    return body


def _progress(state: State) -> Result:
    try:
        state.check_progress()
    except LivenessFailed as error:
        return Result("progress", critical=True, reason=str(error))
    return Result("progress", critical=True)


def _condition(name: str, failure: str, *, holds: bool) -> Result:
    return Result(name, critical=True, reason="" if holds else failure)


def _report(probe: str, results: Sequence[Result]) -> ProbeReport:
    passed = all(result.passed or result.forgiven or not result.critical for result in results)
    lines = [_line(result) for result in results]
    lines.append(f"{probe} check {'passed' if passed else 'failed'}")
    return ProbeReport(200 if passed else 503, lines)


def _line(result: Result) -> str:
    if result.passed:
        return f"[+]{result.name} ok"
    note = (
        " (tolerated for a short time)"
        if result.forgiven
        else ""
        if result.critical
        else " (not critical)"
    )
    return f"[-]{result.name} failed: {result.reason}{note}"
