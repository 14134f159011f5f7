"""How a call to the API server follows a Retry-After."""

import asyncio
from typing import Any

import pytest
from aiohttp import web
from stub_api_server import connected

from orderservice_operator.errors import Busy


async def _requests_until_answer(refusals: int, patience_s: float) -> tuple[Any, int]:
    """Call a server that first refuses; return the answer and the number of calls."""
    requests = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal requests
        requests += 1
        if requests <= refusals:
            headers = {"Retry-After": "1"}
            return web.json_response({"message": "busy"}, status=429, headers=headers)
        return web.json_response({"kind": "Service"})

    async with connected(answer, patience_s=patience_s) as client:
        return await client.get("/one"), requests


def test_a_patient_call_comes_back_to_a_server_that_is_busy() -> None:
    assert asyncio.run(_requests_until_answer(1, patience_s=60)) == ({"kind": "Service"}, 2)


def test_without_patience_the_caller_hears_when_to_come_back() -> None:
    with pytest.raises(Busy) as caught:
        asyncio.run(_requests_until_answer(1, patience_s=0))
    assert caught.value.after_s == 1
