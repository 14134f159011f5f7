"""Serve the API with gunicorn, which is configured by our settings alone.

`ApiArbiter` is gunicorn's master, which drains before it stops and keeps the admin process.
"""

import gc
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from wsgiref.types import WSGIApplication

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.http.parser import _DRAIN_MAX_BYTES
from prometheus_client.multiprocess import mark_process_dead

from orders.admin import listen
from orders.api.metrics import FOLDER_VARIABLE, HTTP_WORKER_EXITS
from orders.api.server.admin_process import AdminProcess, name_process
from orders.api.server.master_state import MasterState
from orders.api.server.metrics_folder import memory_folder
from orders.errors import SettingError
from orders.probes import Check
from orders.settings import ADMIN_PORTS, AdminSettings, ApiSettings
from orders.telemetry import exemplars

WORKER_CLASSES: Final = {
    "meinheld": "orders.api.server.meinheld_worker.MeinheldWorker",
    "gthread": "orders.api.server.gthread_worker.GthreadWorker",
}
# Connections a gthread worker holds, idle ones included.
_CONNECTIONS: Final = 10_000
# The kernel keeps a connection back until it carries data: idle ones cost gthread no thread.
_DEFER_ACCEPT_S: Final = 60


def serve(
    settings: ApiSettings,
    app_factory: Callable[[], WSGIApplication],
    admin: AdminSettings,
    checks: Callable[[], Sequence[Check]],
) -> int:
    """Serve until a signal ends it; return the exit code. Call it inside `metrics_folder()`.

    `app_factory` runs in each worker, `checks` in the admin process. Both run after the fork, where
    they may open connections and start threads. Modules imported before it are shared.
    Raises SettingError if the admin port is taken.
    """
    master = os.getpid()
    state = MasterState(settings.timeout_s)
    process = AdminProcess(_admin_listener(admin), checks, state)
    try:
        ApiArbiter(_Application(settings, app_factory, process, state), process, state).run()
    except SystemExit as end:
        if os.getpid() != master:
            raise  # a worker that ends
        return end.code if isinstance(end.code, int) else 1
    finally:
        if os.getpid() == master:
            process.end()
    return 0


def _admin_listener(admin: AdminSettings) -> socket.socket:
    port = admin.port or ADMIN_PORTS["api"]
    try:
        return listen(admin.host, port)
    except OSError as error:
        raise SettingError(
            f"ORDERS_ADMIN_PORT: cannot listen on {port}: {error.strerror}"
        ) from error


class _Application(BaseApplication):  # type: ignore[misc] # gunicorn ships no types
    """The application object that gives gunicorn its configuration and the WSGI application."""

    def __init__(
        self,
        settings: ApiSettings,
        app_factory: Callable[[], WSGIApplication],
        admin: AdminProcess,
        state: MasterState,
    ) -> None:
        self._settings, self._app_factory = settings, app_factory
        self._admin, self._state = admin, state
        self.drain_delay_s = settings.drain_delay_s
        super().__init__()

    def load_config(self) -> None:
        for name, value in {**configuration(self._settings), **self._hooks()}.items():
            self.cfg.set(name, value)

    def load(self) -> WSGIApplication:
        return self._app_factory()

    def _hooks(self) -> dict[str, Callable[..., None]]:
        def post_fork(_master: Any, worker: Any) -> None:
            name_process("orders-worker")
            self._admin.listener.close()
            worker.notify()  # the first beat: from now on a start that hangs is killed, too

        def post_worker_init(_worker: Any) -> None:
            self._state.start()

        def pre_request(_worker: Any, request: Any) -> None:
            # gthread closes a connection with this much unread body, although the answer promised
            # to keep it open. meinheld does not call this hook; it reads every body whole.
            length = getattr(request.body.reader, "length", None)  # None: chunked
            if length is None or length >= _DRAIN_MAX_BYTES:
                request.force_close()

        def worker_exit(_master: Any, _worker: Any) -> None:
            end = sys.exc_info()[1]  # gunicorn calls this while it ends the process
            if isinstance(end, SystemExit) and not end.code:
                HTTP_WORKER_EXITS.inc()

        def child_exit(_master: Any, worker: Any) -> None:
            mark_process_dead(worker.pid)  # type: ignore[no-untyped-call] # no types
            exemplars.forget(Path(os.environ[FOLDER_VARIABLE]), worker.pid)

        return {
            "when_ready": _prepare_to_fork,
            "post_fork": post_fork,
            "post_worker_init": post_worker_init,
            "pre_request": pre_request,
            "worker_exit": worker_exit,
            "child_exit": child_exit,
        }


def configuration(settings: ApiSettings) -> dict[str, Any]:
    """Return gunicorn's settings for the public port."""
    return {
        "bind": _address(settings),
        "backlog": settings.backlog,
        "worker_class": WORKER_CLASSES[settings.worker_class],
        "workers": settings.workers,
        "threads": settings.at_once,
        "worker_connections": _CONNECTIONS,
        "max_requests": settings.max_requests,
        "max_requests_jitter": settings.max_requests_jitter,
        # The gateway's limits, so that both accept the same requests.
        "limit_request_line": 8190,
        "limit_request_fields": 100,
        "limit_request_field_size": 8190,
        "timeout": settings.timeout_s,
        "graceful_timeout": settings.graceful_timeout_s,
        "keepalive": settings.keepalive_s,
        "worker_tmp_dir": memory_folder(),
        "preload_app": False,  # pools and telemetry do not survive a fork
        "control_socket_disable": True,  # its socket would be in $HOME
        "logger_class": _Log,
        "proc_name": "orders-api",
    }


def _address(settings: ApiSettings) -> str:
    if settings.host.startswith("unix:"):
        return settings.host
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{host}:{settings.port}"


def _prepare_to_fork(master: Any) -> None:
    """Keep the master's objects in memory pages that all workers share."""
    name_process("orders-api")
    for listener in master.LISTENERS:
        if listener.sock.family != socket.AF_UNIX:
            listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _DEFER_ACCEPT_S)
    gc.collect()
    gc.freeze()


class _Log(Logger):  # type: ignore[misc] # gunicorn ships no types
    """Passes gunicorn's log lines to the root logger; the application writes the access log."""

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self._access_log_enabled = False
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        self.error_log.setLevel(logging.NOTSET)


class ApiArbiter(Arbiter):  # type: ignore[misc] # gunicorn ships no types
    """The master process of the API."""

    def __init__(self, app: Any, admin: AdminProcess, state: MasterState) -> None:
        super().__init__(app)
        self._admin, self._state = admin, state
        self._stop_at = float("inf")

    def manage_workers(self) -> None:
        """Start missing processes; gunicorn calls this in each turn of its loop, once a second."""
        super().manage_workers()
        self._state.beat(_last_beat(worker) for worker in self.WORKERS.values())
        self._admin.keep_alive(self.LISTENERS)
        if time.monotonic() >= self._stop_at:
            raise StopIteration  # gunicorn's way to begin its graceful stop

    def spawn_worker(self) -> int:
        """Start one worker; gunicorn starts up to 256 of them in one turn, 0.1 s apart."""
        self._state.beat(())  # one turn of the loop may take long
        pid: int = super().spawn_worker()
        return pid

    def handle_term(self) -> None:
        """Make readiness false, wait for the load balancers to notice, then stop gracefully."""
        self._state.drain()
        delay_s = self.app.drain_delay_s
        self._stop_at = min(self._stop_at, time.monotonic() + delay_s)

    def handle_int(self) -> None:
        """Ctrl-C: stop without the wait."""
        self._state.drain()
        super().handle_int()

    def handle_quit(self) -> None:
        """SIGQUIT: stop without the wait."""
        self._state.drain()
        super().handle_quit()


def _last_beat(worker: Any) -> float:
    try:
        beat: float = worker.tmp.last_update()
    except (OSError, ValueError):  # reaped a moment ago
        return 0.0
    return beat
