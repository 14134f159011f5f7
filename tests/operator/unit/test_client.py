"""What a call to the API server does when it is asked to come back later."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

from orderservice_operator.cluster.client import Client
from orderservice_operator.errors import Busy


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


async def _asked(refusals: int, patience_s: float) -> tuple[Any, int]:
    """Ask a server that refuses so many calls; return the answer and how often it was asked."""
    asked = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        if asked <= refusals:
            headers = {"Retry-After": "1"}
            return web.json_response({"message": "busy"}, status=429, headers=headers)
        return web.json_response({"kind": "Service"})

    application = web.Application()
    application.router.add_get("/one", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    credentials: Any = _Anonymous(f"http://127.0.0.1:{runner.addresses[0][1]}")
    client = Client(credentials, lambda _: None, patience_s=patience_s)
    try:
        return await client.get("/one"), asked
    finally:
        await client.close()
        await runner.cleanup()


def test_a_patient_call_comes_back_to_a_server_that_is_busy() -> None:
    assert asyncio.run(_asked(1, patience_s=60)) == ({"kind": "Service"}, 2)


def test_without_patience_the_caller_hears_when_to_come_back() -> None:
    with pytest.raises(Busy) as caught:
        asyncio.run(_asked(1, patience_s=0))
    assert caught.value.after_s == 1
