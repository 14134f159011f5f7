"""The operator's metrics as its own admin endpoint serves them, without a cluster."""

import asyncio
import threading
from typing import Any, Self

import msgspec
from aiohttp import web

from orderservice_operator import admin
from orderservice_operator.metrics import RESULTS, Metrics
from orderservice_operator.resources import Resources

CONDITIONS = {
    "Ready": ("False", "NotAllReady"),
    "Degraded": ("True", "Problems"),
    "MigrationsComplete": ("False", "Failed"),
    "TopologyReady": ("True", "Ready"),
}


def resource() -> dict[str, Any]:
    """Return an OrderService in a bad way, as the API server would hand it over."""
    conditions = [
        {"type": kind, "status": status, "reason": reason, "message": "", "observedGeneration": 1,
         "lastTransitionTime": "2026-01-01T00:00:00Z"}
        for kind, (status, reason) in CONDITIONS.items()
    ]  # fmt: skip
    return {
        "apiVersion": "orders.platform.dev/v1alpha1",
        "kind": "OrderService",
        "metadata": {"namespace": "shop", "name": "orders", "uid": "u", "resourceVersion": "1"},
        "spec": SPEC,
        "status": {"conditions": conditions},
    }


SPEC: dict[str, Any] = {
    "image": "orderservice:dev",
    "database": {"primarySecretRef": {"name": "database"}},
    "messaging": {"secretRef": {"name": "broker"}},
}


class Served:
    """Serves while the block runs; `address` is host and port."""

    def __init__(self) -> None:
        self.metrics, self._resources = Metrics(), Resources()
        self._resources.put(resource())
        for result in RESULTS:
            self.metrics.reconciles.labels(result).inc()
        self.metrics.duration.observe(0.02)
        self.metrics.requests.labels("PATCH").inc()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.address = ""

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(20)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def targets(self) -> bytes:
        """Return what Prometheus reads from a file about whom to scrape."""
        labels = {"namespace": "orders-system", "service": "orderservice-operator"}
        return msgspec.json.encode([{"targets": [self.address], "labels": labels}])

    async def _serve(self) -> None:
        application = admin.application(list, self.metrics.registry, self._refresh)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.address = f"{host}:{port}"

    def _refresh(self) -> None:
        self.metrics.refresh(self._resources.conditions(), {"Deployment": 1.0})
