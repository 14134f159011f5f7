"""gunicorn around a simulator: one process, because the ledger is one truth in its memory."""

from collections.abc import Callable
from typing import Any

import falcon
import structlog
from gunicorn.app.base import BaseApplication
from gunicorn.workers.gthread import ThreadWorker

from upstreams.faults import Stop
from upstreams.settings import Settings

CreateApp = Callable[[Settings, Stop], falcon.App[falcon.Request, falcon.Response]]


class SimulatorWorker(ThreadWorker):  # type: ignore[misc] # gunicorn has no types
    """A threaded worker that ends scripted waits before it waits for requests in flight."""

    def run(self) -> None:
        """Serve; waits are also ended when gunicorn's own process was killed."""
        try:
            super().run()
        finally:
            self.app.stop.set()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Stop on SIGTERM, after the requests under way."""
        self.app.stop.set()
        super().handle_exit(sig, frame)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Stop at once (SIGINT, SIGQUIT)."""
        self.app.stop.set()
        super().handle_quit(sig, frame)


class Simulator(BaseApplication):  # type: ignore[misc] # gunicorn has no types
    """The gunicorn application of one simulator."""

    def __init__(self, name: str, settings: Settings, create_app: CreateApp) -> None:
        self._name, self._settings, self._create_app = name, settings, create_app
        self.stop = Stop()
        super().__init__()

    def load_config(self) -> None:
        """Configure gunicorn from the settings alone."""
        settings = self._settings
        for key, value in {
            "bind": f"{settings.host}:{settings.port}",
            "workers": 1,
            "threads": settings.threads,
            "worker_class": SimulatorWorker,
            "worker_connections": settings.threads * 4,
            "backlog": 2048,
            "keepalive": 75,  # longer than callers keep an idle connection
            "timeout": 0,  # a killed worker would lose the ledger
            "graceful_timeout": 5,
            "loglevel": "warning",
            "control_socket_disable": True,  # it is made under $HOME, often read-only
            "when_ready": self._ready,
            "certfile": settings.certificate_file or None,
            "keyfile": settings.key_file or None,
        }.items():
            self.cfg.set(key, value)

    def load(self) -> falcon.App[falcon.Request, falcon.Response]:
        """Make the application, in the process that serves it."""
        return self._create_app(self._settings, self.stop)

    def _ready(self, _arbiter: Any) -> None:
        structlog.get_logger().info(
            "simulator.started", host=self._settings.host, port=self._settings.port
        )
