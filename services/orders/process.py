"""The common parts of relay, worker and notifier: start, probes, signals, drain."""

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import structlog
from prometheus_client import REGISTRY

from orders import settings, verified
from orders.admin import Admin, AdminServer, listen
from orders.errors import OrdersError, Transient
from orders.probes import Check, Checks, ProcessState
from orders.telemetry import logs, tracing
from orders.telemetry.build import Identified
from orders.watch import Watch

_BEAT_S: Final = 1.0
STALLED_AFTER_S: Final = 30.0  # a guess: far beyond any pause of the scheduler
_log = structlog.get_logger()


class Life:
    """The process from its start to the signal that ends it."""

    def __init__(self, state: ProcessState) -> None:
        self._state = state
        self._ending = threading.Event()

    def watch(self, progress: Watch, stalled_after_s: float = STALLED_AFTER_S) -> None:
        """Have liveness fail, and so the process restarted, if this work makes no progress."""
        self._state.watch(progress, stalled_after_s)

    def end(self, number: int, _frame: object) -> None:
        """Start the shutdown (a signal handler). Readiness turns false first."""
        self._state.drain()
        _log.info("process.stopping", signal=signal.Signals(number).name)
        self._ending.set()

    def run_until_signal(self) -> None:
        """Record that the start has finished, then wait for a signal."""
        self._state.start()
        _log.info("process.started")
        while not self._ending.wait(_BEAT_S):
            self._state.beat()


@contextlib.contextmanager
def running(name: str, environ: Mapping[str, str], checks: Iterable[Check]) -> Iterator[Life]:
    """Set up logs, traces, probes and signals for the block, and shut them down after it.

    `name` is one of ADMIN_PORTS. Raises SettingError, and OrdersError when the admin port is taken.
    """
    begin_telemetry(name, environ)
    state = ProcessState(STALLED_AFTER_S)
    life = Life(state)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, life.end)
    metrics = Identified(REGISTRY, settings.load(settings.BuildSettings, environ))
    admin = AdminServer(
        _listener(environ, settings.ADMIN_PORTS[name]),
        Admin(Checks(checks), state, metrics),
    )
    admin.start()
    try:
        yield life
    finally:
        tracing.shutdown()
        admin.stop()
        _log.info("process.stopped")


def begin_telemetry(name: str, environ: Mapping[str, str]) -> None:
    """Set up logs and traces, and warn of settings that no process reads."""
    logs.configure(settings.load(settings.LogSettings, environ), name)
    tracing.configure(name)
    for variable in settings.unknown(environ):
        _log.warning("setting.unknown", variable=variable)
    verified.report(environ)


def problem_check(name: str, problem: Callable[[], str | None], *, critical: bool = True) -> Check:
    """Return a readiness check that fails while `problem` returns a text."""

    def test() -> None:
        if (text := problem()) is not None:
            raise Transient(text)

    return Check(name, test, critical)


def _listener(environ: Mapping[str, str], default_port: int) -> socket.socket:
    admin = settings.load(settings.AdminSettings, environ)
    port = admin.port or default_port
    try:
        return listen(admin.host, port)
    except OSError as error:
        message = f"cannot listen on {admin.host}:{port} (ORDERS_ADMIN_PORT): {error.strerror}"
        raise OrdersError(message) from error
