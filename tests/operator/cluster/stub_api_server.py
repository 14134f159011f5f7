"""A server of the test's own in place of an API server, and the operator's client of it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from orderservice_operator.cluster.client import Client


class _Anonymous:
    """Credentials that anybody has."""

    def __init__(self, server: str) -> None:
        self.server = server

    def headers(self) -> dict[str, str]:
        return {}

    def ssl_context(self) -> bool:
        return False

    def renewed(self, _identity: object) -> bool:
        return False


@asynccontextmanager
async def connected(
    answer: Callable[[web.Request], Awaitable[web.Response]], **options: Any
) -> AsyncIterator[Client]:
    """Answer every request by `answer`, and give a client with these options."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    credentials: Any = _Anonymous(f"http://127.0.0.1:{runner.addresses[0][1]}")
    client = Client(credentials, lambda _: None, **options)
    try:
        yield client
    finally:
        await client.close()
        await runner.cleanup()
