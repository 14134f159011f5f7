"""The operator's metrics as its own admin endpoint serves them, without a cluster."""

import asyncio
import threading
from pathlib import Path
from typing import Any, Self

import msgspec
import yaml
from aiohttp import web

from orderservice_operator.control import admin
from orderservice_operator.control.metrics import DONE, FAILED, Metrics
from orderservice_operator.resource.index import ResourceIndex

EXAMPLE = Path(__file__).parents[2] / "operator" / "examples" / "minimal.yaml"
CONDITIONS = {
    "Ready": ("False", "NotAllReady"),
    "Degraded": ("True", "Problems"),
    "MigrationsComplete": ("False", "Failed"),
    "TopologyReady": ("False", "Refused"),
}


def resource() -> dict[str, Any]:
    """Return a broken OrderService as the API server would return it."""
    manifest: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    manifest["metadata"] |= {
        "namespace": "shop",
        "name": "orders",
        "uid": "u",
        "generation": 1,
        "resourceVersion": "1",
    }
    manifest["status"] = {
        "conditions": [
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": "",
                "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
            for kind, (status, reason) in CONDITIONS.items()
        ]
    }
    return manifest


class Served:
    """Serves while the block runs; `address` is host and port."""

    def __init__(self, fails_every: int = 20, watch_age_s: float = 1.0) -> None:
        self._fails_every, self._watch_age_s = fails_every, watch_age_s
        self._resources = ResourceIndex()
        self.metrics = Metrics(self._resources.conditions)
        self._resources.put(resource())
        assert list(self._resources.conditions()), "the example is read"
        self.metrics.leading.set(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.address, self._looks = "", 0

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(20)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def targets(self) -> bytes:
        """Return the targets for Prometheus in its file format."""
        labels = {"namespace": "orders-system", "service": "orderservice-operator"}
        return msgspec.json.encode([{"targets": [self.address], "labels": labels}])

    async def _serve(self) -> None:
        application = admin.application([], 60.0, self.metrics.registry, self._refresh, list)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.address = f"{host}:{port}"

    def _refresh(self) -> None:
        """Update the metrics at each scrape; some reconciliations fail."""
        self._looks += 1
        self.metrics.reconciles.labels(
            FAILED if self._looks % self._fails_every == 0 else DONE
        ).inc()
        self.metrics.duration.observe(0.02)
        self.metrics.requests.labels("PATCH").inc()
        self.metrics.refresh({"Deployment": self._watch_age_s})
