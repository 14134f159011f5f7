"""The references of `make bench` answer as the service does: else their rates say nothing.

The one in Go takes part where a bench has built it.
"""

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from devstack.ports import free_port
from devstack.servers import valkey
from integration.api_process import CURSOR_SECRET, Api, api_running, order
from integration.handles import Database
from integration.serving import SERVICES, eventually
from loadtest.bench import peer
from loadtest.bench.testbed import PEER_FILES
from upstreams.process import running

LIMIT = 8
NEW_USERS = itertools.count(1000)
UVICORN = (
    sys.executable, "-m", "uvicorn", "loadtest.reference.app:app",
    "--loop", "uvloop", "--http", "httptools",
)  # fmt: skip
# What must be alike; ids and dates differ by nature.
FIELDS = (
    "Content-Type", "Cache-Control", "ETag", "Location", "Link", "RateLimit-Policy", "Retry-After",
    "X-Content-Type-Options",
)  # fmt: skip
REFUSED = [
    {"quantity": 0}, {"quantity": "1"}, {"quantity": 1.5}, {"total": 0}, {"total": "19.9"},
    {"total": 1.001}, {"total": True}, {"userId": 2**53}, {"paymentMethod": "a b"}, {"extra": 1},
    {"productId": None}, {"total": 100_000_000},
]  # fmt: skip


@pytest.fixture(scope="module")
def services(
    database: Database, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Api]]:
    """Run the service and its references on the same servers."""
    folder = tmp_path_factory.mktemp("both")
    with ExitStack() as stack:
        inventory = stack.enter_context(running("inventory", free_port()))
        settings = {
            "DATABASE_URL": database.url, "REDIS_URL": redis_url, "INVENTORY_URL": inventory.url,
            "RATE_LIMIT_REQUESTS": str(LIMIT),
        }  # fmt: skip
        environ = os.environ | {f"ORDERS_{name}": value for name, value in settings.items()}
        started = {
            "service": stack.enter_context(api_running(folder, **settings)),
            "python": stack.enter_context(reference_running(folder, environ, *UVICORN)),
        }
        program = peer.built()
        if program is not None:
            started["go"] = stack.enter_context(reference_running(folder, environ, str(program)))
        yield started


REFERENCES = ("python",) if peer.built() is None else ("python", "go")


def test_the_reference_in_go_takes_part() -> None:
    if "go" not in REFERENCES:
        pytest.skip("not built: `make bench ARGS='--quick --only get'` builds it where Go is")


@pytest.fixture(params=REFERENCES)
def apis(
    services: dict[str, Api], redis_url: str, request: pytest.FixtureRequest
) -> tuple[Api, Api]:
    """Give the service and one of its references, with nothing counted yet."""
    valkey.flush(redis_url)
    return services["service"], services[request.param]


@contextmanager
def reference_running(folder: Path, environ: Mapping[str, str], *argv: str) -> Iterator[Api]:
    port, log = free_port(), folder / f"{Path(argv[-1]).name}.log"
    environment = {
        **environ, **PEER_FILES, "PEER_ADDRESS": f"127.0.0.1:{port}",
        "ORDERS_CURSOR_SECRET": CURSOR_SECRET, "PYTHONPATH": f"{SERVICES.parent}:{SERVICES}",
    }  # fmt: skip
    arguments = [] if len(argv) == 1 else ["--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*argv, *arguments], env=environment, stdout=output, stderr=output
        )
    api = Api(port, port, log)

    def is_up() -> bool:
        assert process.poll() is None, log.read_text()
        return api.get("/api/orders/user/1").ok

    try:
        eventually(is_up, 180)
        yield api
    finally:
        api.session.close()
        process.terminate()
        process.wait(60)


def head(reply: requests.Response) -> tuple[int, dict[str, str | None]]:
    headers = {name: reply.headers.get(name) for name in FIELDS}
    if headers[
        "Link"
    ]:  # the position of a cursor, but not its seal, for which Go has a hash of its own
        headers["Link"] = re.sub("(cursor=.{22}).{22}", r"\1", headers["Link"])
    return reply.status_code, headers


def without_ids(order: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in order.items() if name != "orderId"}


def test_an_accepted_order_is_answered_alike(apis: tuple[Api, Api]) -> None:
    replies = [api.post(user=11) for api in apis]
    bodies = [reply.json() for reply in replies]
    assert without_ids(bodies[0]) == without_ids(bodies[1])
    assert bodies[0]["orderId"] < bodies[1]["orderId"]
    for reply, body in zip(replies, bodies, strict=True):
        assert reply.headers["Location"] == f"/api/orders/{body['orderId']}"
        assert reply.headers["traceparent"].startswith("00-")
        assert reply.headers["X-Correlation-ID"]
        del reply.headers["Location"]
    assert head(replies[0]) == head(replies[1])


def test_an_order_is_shown_alike_whoever_filled_the_cache(apis: tuple[Api, Api]) -> None:
    for first, second in (apis, apis[::-1]):
        number = first.post(user=12).json()["orderId"]
        replies = [api.get(f"/api/orders/{number}") for api in (first, second, first)]
        assert len({reply.content for reply in replies}) == 1
        assert head(replies[0]) == head(replies[1])
        tag = replies[0].headers["ETag"]
        unchanged = [api.get(f"/api/orders/{number}", If_None_Match=tag) for api in apis]
        assert [reply.status_code for reply in unchanged] == [304, 304]


def test_the_first_page_of_a_list_is_shown_alike(apis: tuple[Api, Api]) -> None:
    service, reference = apis
    for user in (13, 13, 13, 14):
        service.post(user=user)
    for query in ("", "?pageSize=2", "?pageSize=3"):
        replies = [api.get(f"/api/orders/user/13{query}") for api in apis]
        assert replies[0].content == replies[1].content
        assert head(replies[0]) == head(replies[1])
    assert service.get("/api/orders/user/13?pageSize=2").headers["Link"]
    assert reference.get("/api/orders/user/99").json() == []


def test_what_few_orders_have_is_shown_alike(apis: tuple[Api, Api], database: Database) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        for status in ("Charging", "Refunded"):
            number = apis[0].post(user=19).json()["orderId"]
            connection.execute(
                b"UPDATE orders SET status = %s, status_reason = 'Asked', cancel_requested = true,"
                b" refund_requested = 1.5, refunded = 1.5 WHERE id = %s",
                (status, number),
            )
    replies = [api.get("/api/orders/user/19?pageSize=2") for api in apis]
    assert replies[0].content == replies[1].content
    assert ["cancelRequested" in row for row in replies[0].json()] == [False, True]


@pytest.mark.parametrize("members", REFUSED, ids=str)
def test_both_refuse_the_same_orders(apis: tuple[Api, Api], members: dict[str, Any]) -> None:
    replies = [api.request("POST", "/api/orders", json=order(15) | members) for api in apis]
    assert [reply.status_code for reply in replies] == [400, 400]


def test_both_miss_and_refuse_the_same_ids(apis: tuple[Api, Api]) -> None:
    for path, status in (("/api/orders/987654", 404), ("/api/orders/0", 400)):
        assert [api.get(path).status_code for api in apis] == [status, status]


def test_both_limit_at_the_same_request(apis: tuple[Api, Api]) -> None:
    for api, user in zip(apis, NEW_USERS, strict=False):  # the service remembers whom it refused
        statuses = [api.get(f"/api/orders/user/{user}") for _ in range(LIMIT + 1)]
        assert [reply.status_code for reply in statuses] == [200] * LIMIT + [429]
        remaining = [reply.headers["RateLimit"].split(";")[1] for reply in statuses]
        assert remaining == [f"r={LIMIT - count}" for count in range(1, LIMIT + 1)] + ["r=0"]
        assert int(statuses[-1].headers["Retry-After"]) > 0
        assert statuses[-1].json()["error"] == "Rate limit exceeded. Please retry later."


def test_both_refuse_what_is_out_of_stock(apis: tuple[Api, Api]) -> None:
    replies = [api.post(user=18, productId=999999) for api in apis]
    assert [reply.status_code for reply in replies] == [400, 400]
    assert [reply.json()["error"] for reply in replies] == ["Insufficient inventory"] * 2
