"""The api's admin process: in a worker, probes would wait behind other requests."""

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import structlog
from prometheus_client import REGISTRY
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from orders.admin import Admin, AdminServer
from orders.api.server.master_state import MasterState
from orders.probes import Check, Checks
from orders.settings import BuildSettings, load
from orders.telemetry import exemplars
from orders.telemetry.build import Identified

# How soon the process notices that the master is gone.
_MASTER_CHECK_S: Final = 0.25
_RESTART_S: Final = 1.0
# The terminal sends Ctrl-C to all processes, but probes must be answered until the master ends.
_IGNORED_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)
_DEFAULT_SIGNALS: Final = (signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)

# Metrics of the process that serves them, not of the API.
_OF_ONE_PROCESS: Final = ("process_", "python_")

_log = structlog.get_logger(__name__)


class AdminProcess:
    """A child of gunicorn's master: started by it, replaced if it dies, ended with it."""

    def __init__(
        self, listener: socket.socket, checks: Callable[[], Sequence[Check]], state: MasterState
    ) -> None:
        self.listener = listener
        self._checks = checks
        self._state = state
        self._pid = 0
        self._started_at = float("-inf")
        self._master_began_at = time.time()

    def keep_alive(self, listeners: Iterable[Any]) -> None:
        """Start the process unless it runs; `listeners` are the master's, to be closed in it."""
        if self._runs() or time.monotonic() - self._started_at < _RESTART_S:
            return
        if self._pid:
            _log.error("admin_process.died", pid=self._pid)
        self._started_at = time.monotonic()
        master = os.getpid()
        self._pid = os.fork()
        if not self._pid:
            self._run(master, listeners)

    def _runs(self) -> bool:
        if not self._pid:
            return False
        with suppress(ChildProcessError):  # the master has reaped it already
            return os.waitpid(self._pid, os.WNOHANG) == (0, 0)
        return False

    def end(self) -> None:
        """End the process; it has nothing to finish."""
        if self._runs():
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def _run(self, master: int, listeners: Iterable[Any]) -> NoReturn:
        status = 1
        try:
            _reset_after_fork(listeners)
            folder = os.environ["PROMETHEUS_MULTIPROC_DIR"]
            metrics = Identified(
                DeclaredMetrics(folder, self._master_began_at), load(BuildSettings, os.environ)
            )
            admin = Admin(Checks(self._checks()), self._state, metrics)
            AdminServer(self.listener, admin).start()
            while os.getppid() == master:
                time.sleep(_MASTER_CHECK_S)
            # The master was killed, so it did not remove its folder.
            shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
            status = 0
        except Exception:  # noqa: BLE001 logged, and the master restarts the process
            _log.exception("admin_process.failed")
        finally:
            os._exit(status)  # not through the master's own clean-up


def _reset_after_fork(listeners: Iterable[Any]) -> None:
    """Give the process its own name and signal handlers, and close the master's listeners."""
    name_process("orders-admin")
    for number in _IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    for number in _DEFAULT_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    for listener in listeners:
        listener.close()


def name_process(name: str) -> None:
    """Set the name that `ps` and `top` show, at most 15 characters; only Linux can."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name)


class DeclaredMetrics(Collector):
    """Collects the sums over all workers; a metric without a value has only HELP and TYPE."""

    def __init__(self, folder: str, began_at: float) -> None:
        self._began_at, self._folder = began_at, Path(folder)
        self._sums = MultiProcessCollector(None, folder)  # type: ignore[no-untyped-call] # no types

    def collect(self) -> Iterator[Metric]:
        """Yield each metric once. The start time is that of the master."""
        yield GaugeMetricFamily(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            value=self._began_at,
        )
        names, traces = set(), exemplars.read(self._folder)
        for metric in self._sums.collect():  # type: ignore[no-untyped-call] # no types
            names.add(metric.name)
            exemplars.attach(metric, traces)
            yield metric
        for metric in REGISTRY.collect():
            if metric.name not in names and not metric.name.startswith(_OF_ONE_PROCESS):
                metric.samples = []  # the values of this process alone
                yield metric
