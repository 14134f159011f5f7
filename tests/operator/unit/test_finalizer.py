"""A finalizer is removed in every state of the cluster, the broker and the spec."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import msgspec
import pytest
from aiohttp import web
from stub_api_server import connected

from orderservice_operator.children.manifest import OWNER_LABEL
from orderservice_operator.cluster.events import Recorder
from orderservice_operator.cluster.store import Store
from orderservice_operator.control.finalizer import FINALIZER, Finalizer
from orderservice_operator.errors import Transient, Vanished
from orderservice_operator.rabbitmq.reconciler import TopologyReconciler
from orderservice_operator.resource.decoding import Invalid
from orderservice_operator.resource.spec import OrderService

DELETE_IF_EMPTY = {"managementUrl": "http://127.0.0.1:9", "deletionPolicy": "DeleteIfEmpty"}
OTHER = "others.example/finalizer"


class ApiServer:
    """Accepts and records every request; `refusals` are statuses by method.

    `ahead_s` is by how much its clock is ahead of ours.
    """

    def __init__(self, ahead_s: float = 0.0, **refusals: int) -> None:
        self.refusals, self.ahead_s = refusals, ahead_s
        self.requests: list[tuple[str, str, Any]] = []

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        self.requests.append((request.method, request.path, body))
        status = self.refusals.get(request.method, 200)
        # What every call gets: a Secret's `url` is all that anybody reads of it.
        date = format_datetime(self.now, usegmt=True)
        return web.json_response(
            {"data": {"url": "YW1xcDovL2E6YkAxMjcuMC4wLjE="}}, status=status, headers={"Date": date}
        )

    @property
    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead_s)

    @property
    def finalizers(self) -> list[str] | None:
        """The finalizers that were left at the end; None if they were not changed."""
        patches = [body for method, _, body in self.requests if method == "PATCH"]
        remaining: list[str] | None = patches[-1]["metadata"]["finalizers"] if patches else None
        return remaining

    @property
    def events(self) -> list[tuple[str, str]]:
        bodies = [
            body
            for method, path, body in self.requests
            if (method, path[-6:]) == ("POST", "events")
        ]
        return [(body["reason"], body["message"]) for body in bodies]


@asynccontextmanager
async def _started(server: ApiServer, bound_s: float) -> AsyncIterator[Finalizer]:
    """Give the real parts, with a Deployment of the resource still there."""
    store = Store(lambda _: None)
    if "DELETE" in server.refusals:
        store.take(("apps/v1", "Deployment"), [_deployment()])
    async with connected(server.answer) as client:
        topologies = TopologyReconciler(client, lambda _: None, list)
        try:
            await client.get("/")  # as watches do all the time: its time is known
            yield Finalizer(client, store, topologies, Recorder(client), bound_s)
        finally:
            await topologies.close()


def _deployment() -> Any:
    labels = {OWNER_LABEL: "minimal"}
    metadata = {"namespace": "shop", "name": "minimal-relay", "resourceVersion": "5"}
    return {"metadata": metadata | {"labels": labels, "uid": "d"}}


def _deleted(service: OrderService, ago_s: float = 0.0) -> OrderService:
    since = datetime.now(UTC) - timedelta(seconds=ago_s)
    metadata = msgspec.structs.replace(
        service.metadata,
        deletion_timestamp=since.isoformat(),
        finalizers=(OTHER, FINALIZER),
        resource_version="7",
    )
    return msgspec.structs.replace(service, metadata=metadata)


def _run(
    server: ApiServer, work: Callable[[Finalizer], Awaitable[Any]], bound_s: float = 60.0
) -> Any:
    async def main() -> Any:
        async with _started(server, bound_s) as finalizer:
            return await work(finalizer)

    return asyncio.run(main())


async def _until_gone(finalizer: Finalizer, service: OrderService) -> float:
    """Finalize until no retry is wanted; return how many seconds that took."""
    began_at = time.monotonic()
    async with asyncio.timeout(20):
        while (wait_s := await finalizer.finalize(service)) is not None:  # noqa: ASYNC110 it says when
            await asyncio.sleep(wait_s)
    return time.monotonic() - began_at


def test_pods_that_may_not_be_deleted_hold_it_up_no_longer_than_its_bound(make: Any) -> None:
    server = ApiServer(DELETE=403)
    service = _deleted(make(messaging=DELETE_IF_EMPTY))
    assert _run(server, lambda finalizer: _until_gone(finalizer, service), bound_s=1) < 15
    assert server.finalizers == [OTHER]
    ((reason, message),) = server.events
    assert reason == "QueuesLeft"
    assert "403" in message


@pytest.mark.parametrize("ahead_s", [-180.0, 180.0])
def test_the_bound_is_one_of_the_api_servers_clock(make: Any, ahead_s: float) -> None:
    server = ApiServer(ahead_s, DELETE=403)
    service = _deleted(make(messaging=DELETE_IF_EMPTY), ago_s=-ahead_s)
    took_s = _run(server, lambda finalizer: _until_gone(finalizer, service), bound_s=3)
    assert 1.5 < took_s < 15  # dates are in whole seconds
    assert server.finalizers == [OTHER]


def test_a_bound_that_is_over_leaves_no_time_for_anything(make: Any) -> None:
    """After a restart, say."""
    server = ApiServer(DELETE=403)
    service = _deleted(make(messaging=DELETE_IF_EMPTY), ago_s=3600)
    assert _run(server, lambda finalizer: finalizer.finalize(service)) is None
    assert server.finalizers == [OTHER]
    assert "DELETE" not in {method for method, _, _ in server.requests}


def test_a_broker_that_never_answers_holds_it_up_no_longer_than_its_bound(make: Any) -> None:
    server = ApiServer()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        service = _deleted(make(messaging=DELETE_IF_EMPTY | {"managementUrl": url}))
        assert _run(server, lambda finalizer: _until_gone(finalizer, service), bound_s=2) < 15
    assert server.finalizers == [OTHER]
    assert [reason for reason, _ in server.events] == ["QueuesLeft"]


@pytest.mark.parametrize(
    "spec",
    [
        {"messaging": {"deletionPolicy": "Retain"}},
        {"messaging": DELETE_IF_EMPTY, "mode": "Observe"},
        {"messaging": DELETE_IF_EMPTY, "paused": True},
    ],
    ids=["Retain", "Observe", "paused"],
)
def test_what_the_spec_leaves_alone_now_is_left_whatever_it_said_before(
    make: Any, spec: Any
) -> None:
    """The finalizer is from before: the spec was changed under a pause or without an operator."""
    server = ApiServer(DELETE=500)
    service = _deleted(make(**spec))
    assert _run(server, lambda finalizer: finalizer.finalize(service)) is None
    assert server.finalizers == [OTHER]
    assert {method for method, _, _ in server.requests} == {"GET", "POST", "PATCH"}


def test_a_resource_that_cannot_be_read_is_let_go_and_its_queues_are_told(make: Any) -> None:
    server = ApiServer()
    metadata = _deleted(make()).metadata
    assert (
        _run(server, lambda finalizer: finalizer.finalize(Invalid(metadata, "bad: $.spec.x")))
        is None
    )
    assert server.finalizers == [OTHER]
    ((reason, message),) = server.events
    assert (reason, "$.spec.x" in message) == ("QueuesLeft", True)


def test_a_finalizer_that_could_not_be_taken_away_is_tried_again(make: Any) -> None:
    service = _deleted(make(messaging={"deletionPolicy": "Retain"}))
    with pytest.raises(Transient):
        _run(ApiServer(PATCH=409), lambda finalizer: finalizer.finalize(service))


def test_a_resource_that_is_gone_is_told_to_be_so(make: Any) -> None:
    service = _deleted(make(messaging={"deletionPolicy": "Retain"}))
    with pytest.raises(Vanished):
        _run(ApiServer(PATCH=404), lambda finalizer: finalizer.finalize(service))
    with pytest.raises(Vanished):
        _run(
            ApiServer(PATCH=404),
            lambda finalizer: finalizer.set_or_remove(make(messaging=DELETE_IF_EMPTY)),
        )
