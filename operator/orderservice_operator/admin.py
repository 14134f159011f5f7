"""Probes and metrics of the operator itself."""

import time
from collections.abc import Callable, Iterable
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from orderservice_operator.cluster.informer import Informer

# Watches are renewed every five minutes and say something each minute before that.
_DEAF_AFTER_S: Final = 400.0


def problems(informers: Iterable[Informer]) -> list[str]:
    """Return what keeps the operator from seeing the cluster."""
    now = time.monotonic()
    return [
        f"{informer.kind.name}: {'deaf' if informer.synced.is_set() else 'not listed yet'}"
        for informer in informers
        if not informer.synced.is_set() or now - informer.heard_at > _DEAF_AFTER_S
    ]


def application(
    problems: Callable[[], list[str]], registry: CollectorRegistry, refresh: Callable[[], None]
) -> web.Application:
    """Return /livez, /readyz and /metrics; `refresh` brings gauges up to date."""

    async def livez(_request: web.Request) -> web.Response:
        # Deaf for long: a restart lists everything anew.
        deaf = [problem for problem in problems() if problem.endswith("deaf")]
        return _probe(deaf)

    async def readyz(_request: web.Request) -> web.Response:
        return _probe(problems())

    async def metrics(_request: web.Request) -> web.Response:
        refresh()
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    made = web.Application()
    made.add_routes(
        [web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)]
    )
    return made


def _probe(found: list[str]) -> web.Response:
    if found:
        return web.Response(status=503, text="\n".join(found) + "\n")
    return web.Response(text="ok\n")
