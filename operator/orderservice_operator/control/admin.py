"""Probes and metrics of the operator itself."""

import time
from collections.abc import Callable, Collection, Iterable
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from orderservice_operator.cluster.informer import Informer

# Time to find out that a watch is dead and to list again.
_RENEWAL_S: Final = 5.0
# A guess: by then the operator has tried several times to list again.
_LIVENESS_FACTOR: Final = 5


def problems(informers: Iterable[Informer], silence_s: float) -> list[str]:
    """Return why the operator does not see the cluster: the silent watches with their age."""
    return [problem for informer in informers if (problem := _problem(informer, silence_s))]


def silent_watches(informers: Iterable[Informer], silence_s: float) -> list[str]:
    """Return the watches that have been silent for so long that a restart may help."""
    return problems(
        (informer for informer in informers if informer.synced.is_set()),
        silence_s * _LIVENESS_FACTOR,
    )


def _problem(informer: Informer, silence_s: float) -> str:
    age_s = time.monotonic() - informer.heard_at
    if not informer.synced.is_set():
        return f"{informer.kind.name}: not listed yet"
    if age_s < silence_s + _RENEWAL_S:
        return ""
    return f"{informer.kind.name}: silent for {age_s:.0f} s"


def application(
    informers: Collection[Informer],
    silence_s: float,
    registry: CollectorRegistry,
    refresh: Callable[[], None],
    unready: Callable[[], list[str]],
) -> web.Application:
    """Return /livez, /readyz and /metrics; `refresh` updates gauges.

    `unready` returns further reasons why this replica is not ready; they are no reason for a
    restart.
    """

    async def livez(_request: web.Request) -> web.Response:
        return _probe(silent_watches(informers, silence_s))

    async def readyz(_request: web.Request) -> web.Response:
        return _probe(problems(informers, silence_s) + unready())

    async def metrics(_request: web.Request) -> web.Response:
        refresh()
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    app = web.Application()
    app.add_routes(
        [web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)]
    )
    return app


def _probe(failures: list[str]) -> web.Response:
    if failures:
        return web.Response(status=503, text="\n".join(failures) + "\n")
    return web.Response(text="ok\n")
