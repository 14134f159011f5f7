"""The api process: gunicorn's master, which forks the workers and the admin process."""

import atexit
from collections.abc import Mapping
from wsgiref.types import WSGIApplication

import structlog

from orders.api.server.metrics_folder import metrics_folder


def run(environ: Mapping[str, str]) -> int:
    """Serve until a signal ends it; return the exit code. Raises SettingError."""
    with metrics_folder():
        return _serve(environ)


def _serve(environ: Mapping[str, str]) -> int:
    # Imported here: what imports prometheus_client must find the folder of its files.
    from orders import verified
    from orders.api import metrics, wiring
    from orders.api.server.application import serve
    from orders.settings import AdminSettings, LogSettings, load, unknown
    from orders.telemetry import logs, tracing

    settings, admin = wiring.read_settings(environ), load(AdminSettings, environ)
    logs.configure(load(LogSettings, environ), "api")
    for variable in unknown(environ):
        structlog.get_logger().warning("setting.unknown", variable=variable)
    verified.report(environ)

    def app() -> WSGIApplication:
        tracing.configure("api")
        metrics.count_worker(settings.api.at_once)
        service = wiring.build(settings)
        # At the end of this worker, which is a fork.
        atexit.register(tracing.shutdown)
        atexit.register(service.close)
        return service.app

    return serve(settings.api, app, admin, lambda: wiring.probe_checks(settings))
