"""Which writes, roll-outs and deletions go on when the API server refuses a part of a plan."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web
from stub_api_server import connected

from orderservice_operator.children.manifest import Manifest, Reference
from orderservice_operator.cluster.store import Store
from orderservice_operator.cluster.writer import Outcome, Writer
from orderservice_operator.resource.key import Key
from orderservice_operator.state.plan import Plan, Write

KEY = Key("shop", "minimal")
ACCOUNT = Reference("v1", "ServiceAccount", "minimal")
Refuses = Callable[[web.Request], int]


def _manifest(api_version: str, kind: str) -> Manifest:
    metadata = {"name": "minimal", "namespace": "shop", "uid": "u", "resourceVersion": "1"}
    spec: Manifest = {"template": {"spec": {"containers": []}}}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}


def _carried_out(plan: Plan, refuses: Refuses) -> tuple[Outcome, list[str]]:
    """Carry out a plan of templates that are passed on; return what the API server then did."""
    deeds: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response({}, status=404)
        if status := refuses(request):
            return web.json_response({"message": "denied"}, status=status)
        if "dryRun" not in request.query:
            deeds.append(f"{request.method} {request.path.split('/')[-2]}")
        body: Any = msgspec.json.decode(await request.read())
        return web.json_response(body)

    async def main() -> Outcome:
        live = {ACCOUNT: _manifest("v1", "ServiceAccount")}
        async with connected(answer) as client:
            writer = Writer(client, Store(lambda _: None))
            return await writer.carry_out(plan, KEY, live, dry_run_first=True)

    return asyncio.run(main()), deeds


PLAN = Plan(
    writes=(
        Write(_manifest("networking.k8s.io/v1", "Ingress")),
        Write(_manifest("apps/v1", "Deployment")),
    ),
    deletions=(ACCOUNT,),
)


def test_a_refused_child_of_another_kind_does_not_hold_up_a_deployment() -> None:
    outcome, deeds = _carried_out(PLAN, lambda request: 422 * ("ingresses" in request.path))
    assert deeds == ["PATCH deployments", "DELETE serviceaccounts"]
    assert (len(outcome.faults), outcome.refused) == (1, [])


def test_a_refused_deployment_is_not_written_and_nothing_goes_that_its_pods_may_name() -> None:
    outcome, deeds = _carried_out(PLAN, lambda request: 422 * ("deployments" in request.path))
    assert deeds == ["PATCH ingresses"]
    assert outcome.refused == ["Deployment minimal: 422: denied"]


def test_a_deployment_that_could_not_be_checked_is_tried_again_and_nothing_goes_before() -> None:
    outcome, deeds = _carried_out(PLAN, lambda request: 503 * ("dryRun" in request.query))
    assert deeds == ["PATCH ingresses"]
    assert outcome.again is not None
    assert outcome.refused == []


def test_a_new_child_costs_a_look_and_a_write() -> None:
    """A child that others made must not be adopted, and an apply cannot be limited to creating."""
    requests: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        requests.append(request.method)
        if request.method == "GET":
            return web.json_response({}, status=404)
        return web.json_response(msgspec.json.decode(await request.read()))

    async def main() -> None:
        async with connected(answer) as client:
            plan = Plan(writes=PLAN.writes, deletions=())
            await Writer(client, Store(lambda _: None)).carry_out(plan, KEY, {})

    asyncio.run(main())
    assert sorted(requests) == ["GET"] * len(PLAN.writes) + ["PATCH"] * len(PLAN.writes)
