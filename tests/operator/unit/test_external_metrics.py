"""The external metrics API: selectors, certificates, who may call, and what is answered."""

import asyncio
import contextlib
import datetime as dt
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from control_plane.plane import free_ports
from orderservice_operator.control import settings
from orderservice_operator.errors import OperatorError, Permanent, Transient
from orderservice_operator.external_metrics import (
    address,
    certificates,
    documents,
    front_proxy,
    identity,
    registration,
    selectors,
    server,
)
from orderservice_operator.external_metrics.depth import Depths
from orderservice_operator.external_metrics.documents import Series
from orderservice_operator.external_metrics.front_proxy import FrontProxy
from orderservice_operator.external_metrics.listener import Listener
from orderservice_operator.resource.spec import OrderService

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
NAMES = ("metrics.system.svc", "metrics.system")
LABELS = {"orderservice": "shop", "queue": "order-processing"}
VALUES = f"/apis/{documents.GROUP_VERSION}/namespaces/shop/orderservice_queue_messages"


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ("", True),
        ("  ", True),
        ("orderservice=shop", True),
        ("orderservice == shop,queue=order-processing", True),
        ("orderservice=other", False),
        ("orderservice=shop,queue=other", False),
        ("orderservice!=other", True),
        ("tier!=gold", True),
        ("queue in (a, order-processing)", True),
        ("queue in (a,b),orderservice=shop", False),
        ("queue notin (a,b),orderservice=shop", True),
        ("tier notin (a)", True),
        ("queue", True),
        ("!queue", False),
        ("! tier", True),
        ("orderservice=", False),
    ],
)
def test_a_selector_selects(selector: str, selected: object) -> None:
    assert selectors.matches(selector, LABELS) is selected


@pytest.mark.parametrize(
    "selector", ["=", "a=b=c", "a in b", "a in (b", ",", "a b", "a=b,", "x" * 9999]
)
def test_what_is_no_selector_is_refused(selector: str) -> None:
    with pytest.raises(Permanent):
        selectors.requirements(selector)


@given(st.text(alphabet="ab=!(), in", max_size=40))
def test_any_text_is_a_selector_or_is_refused(text: str) -> None:
    with contextlib.suppress(Permanent):
        selectors.matches(text, LABELS)


def test_a_certificate_is_of_its_authority_and_for_its_names() -> None:
    pair = certificates.issue(NAMES, NOW)
    assert certificates.is_sound(pair)
    certificate = x509.load_pem_x509_certificate(pair.certificate.encode())
    assert certificate.not_valid_after_utc == NOW + certificates.LIFETIME
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert tuple(extension.value.get_values_for_type(x509.DNSName)) == NAMES


def test_the_authority_before_stays_trusted_and_no_older_one_does() -> None:
    first = certificates.issue(NAMES, NOW)
    second = certificates.issue(NAMES, NOW, previous=first)
    third = certificates.issue(NAMES, NOW, previous=second)
    newest = [certificates.authorities_of(pair)[0] for pair in (third, second)]
    assert certificates.authorities_of(third) == newest


@pytest.mark.parametrize(("days", "due"), [(0, False), (59, False), (61, True), (91, True)])
def test_a_certificate_is_renewed_long_before_it_ends(days: int, due: object) -> None:
    pair = certificates.issue(NAMES, NOW)
    assert certificates.is_due(pair, NAMES, NOW + dt.timedelta(days=days)) is due


def test_a_certificate_for_another_service_is_renewed() -> None:
    assert certificates.is_due(certificates.issue(NAMES, NOW), ("other.system.svc",), NOW)


def test_what_somebody_wrote_into_the_secret_is_not_used() -> None:
    own_pair, other = certificates.issue(NAMES, NOW), certificates.issue(NAMES, NOW)
    mixed = [
        msgspec.structs.replace(own_pair, key=other.key),
        msgspec.structs.replace(own_pair, authorities=other.authorities),
        msgspec.structs.replace(own_pair, certificate="junk"),
        msgspec.structs.replace(own_pair, authorities=""),
        identity.pair_of({}),
    ]
    assert [certificates.is_sound(pair) for pair in mixed] == [False] * 5


def test_a_pair_survives_the_secret_and_is_never_printed() -> None:
    pair = certificates.issue(NAMES, NOW)
    assert identity.pair_of(identity.data_of(pair)) == pair
    assert "PRIVATE" not in repr(pair)


def _certificate(name: str) -> dict[str, Any]:
    return {"subject": ((("organizationName", "o"),), (("commonName", name),))}


@pytest.mark.parametrize(
    ("certificate", "names", "let_in"),
    [
        (_certificate("front-proxy-client"), {"front-proxy-client"}, True),
        (_certificate("anybody"), set(), True),
        (_certificate("admin"), {"front-proxy-client"}, False),
        ({}, set(), False),
        (None, set(), False),
        ({"subject": ()}, {"front-proxy-client"}, False),
    ],
)
def test_only_the_aggregation_layer_is_let_in(
    certificate: Any, names: set[str], let_in: object
) -> None:
    refusal = front_proxy.refusal(certificate, FrontProxy("", frozenset(names)))
    assert (refusal is None) is let_in


def test_a_cluster_without_an_aggregation_layer_is_told() -> None:
    with pytest.raises(Permanent, match="requestheader-client-ca-file"):
        front_proxy.read({"client-ca-file": "x"})


def test_who_holds_the_api() -> None:
    own_address = address.ServiceAddress("system", "metrics")
    assert registration.holder(None, own_address).held_by == "nobody"
    assert (
        registration.holder(registration.api_service(own_address, "pem"), own_address).held_by
        == "operator"
    )
    api_service = registration.api_service(address.ServiceAddress("keda", "metrics"), "pem")
    holder = registration.holder(api_service, own_address)
    assert (holder.held_by, holder.server) == ("other", "Service keda/metrics")
    assert registration.holder(api_service, None).can_serve is False


@pytest.mark.parametrize("text", ["metrics", "a/b/c", "a/b:x", "a/b:123456", "A/b"])
def test_a_service_that_is_none_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(OperatorError):
        settings.load({"OPERATOR_EXTERNAL_METRICS_SERVICE": text})


def test_a_service_is_read() -> None:
    assert address.read("system/metrics") == address.ServiceAddress("system", "metrics", 443)
    assert address.read("system/metrics:8443") == address.ServiceAddress("system", "metrics", 8443)
    assert address.read("") is None


Ask = Callable[..., tuple[int, Any]]


@pytest.fixture
def ask(make: Any) -> Ask:
    """Call the API about one resource, without TLS: `refusal` decides who is admitted."""

    def get(path: str, depth: int | Exception = 7, refusal: str | None = None) -> Any:
        services: list[OrderService] = [make("minimal")]

        async def read(selected: Any) -> list[Series]:
            if isinstance(depth, Exception):
                raise depth
            return [
                Series({"orderservice": service.metadata.name}, depth, NOW) for service in selected
            ]

        application = server.application(lambda: services, read, lambda _: refusal, lambda _: None)

        async def main() -> tuple[int, Any]:
            async with TestClient(TestServer(application)) as client:
                answer = await client.get(path)
                return answer.status, await answer.json()

        return _run(main())

    return get


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def test_a_value_is_answered(ask: Ask) -> None:
    code, body = ask(f"{VALUES}?labelSelector=orderservice%3Dminimal")
    assert code == 200
    assert body == {
        "kind": "ExternalMetricValueList",
        "apiVersion": "external.metrics.k8s.io/v1beta1",
        "metadata": {},
        "items": [
            {
                "metricName": "orderservice_queue_messages",
                "metricLabels": {"orderservice": "minimal"},
                "timestamp": "2026-01-02T03:04:05Z",
                "value": "7",
            }
        ],
    }


@pytest.mark.parametrize(
    ("path", "fields", "code", "reason"),
    [
        (f"{VALUES}?labelSelector=%3D", {}, 400, "BadRequest"),
        (VALUES, {"refusal": "no"}, 401, "Unauthorized"),
        ("/openapi/v2", {"refusal": "no"}, 401, "Unauthorized"),
        ("/openapi/v2", {}, 404, "NotFound"),
        (VALUES.replace("orderservice_queue", "other"), {}, 404, "NotFound"),
        (VALUES, {"depth": Transient("down")}, 503, "ServiceUnavailable"),
        (VALUES, {"depth": Permanent("wrong password")}, 503, "ServiceUnavailable"),
        (VALUES, {"depth": ZeroDivisionError("x")}, 500, "InternalError"),
    ],
)
def test_an_error_is_one_that_kubernetes_reads(
    ask: Ask, path: str, fields: Any, code: int, reason: str
) -> None:
    status, body = ask(path, **fields)
    assert status == code
    assert (body["kind"], body["code"], body["reason"]) == ("Status", code, reason)


def test_an_unexpected_error_tells_nothing(ask: Ask) -> None:
    _, body = ask(VALUES, depth=ZeroDivisionError("secret"))
    assert "secret" not in body["message"]


def test_what_is_not_selected_is_not_answered(ask: Ask) -> None:
    for path in (f"{VALUES}?labelSelector=orderservice%3Dother", VALUES.replace("/shop/", "/x/")):
        assert ask(path)[1]["items"] == []


def test_a_certificate_is_replaced_while_callers_come_and_none_is_dropped() -> None:
    proxy = FrontProxy(certificates.issue(NAMES, NOW).authorities, frozenset())
    pairs = [certificates.issue(NAMES, dt.datetime.now(dt.UTC)) for _ in range(5)]
    (port,) = free_ports(1)

    async def main() -> set[str]:
        listener, is_over, pems = Listener(web.Application(), "127.0.0.1", port), False, set[str]()

        async def call() -> None:
            while not is_over:
                pems.add(await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port)))

        await listener.show(pairs[0], proxy)
        async with asyncio.TaskGroup() as callers:
            for _ in range(4):
                callers.create_task(call())
            for pair in pairs:
                await listener.show(pair, proxy)
                await asyncio.sleep(0.2)
            is_over = True
        await listener.close()
        return pems

    assert _run(main()) >= {pair.certificate for pair in pairs[-2:]}


def test_the_group_and_its_metric_are_discovered(ask: Ask) -> None:
    assert ask("/apis/external.metrics.k8s.io")[1]["kind"] == "APIGroup"
    _, resources = ask("/apis/external.metrics.k8s.io/v1beta1")
    assert [(resource["name"], resource["namespaced"]) for resource in resources["resources"]] == [
        ("orderservice_queue_messages", True)
    ]


class _Broker:
    """Counts who asks; answers when it may."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.requests, self.may = 0, asyncio.Event()
        self._fault = fault

    async def ask(self, _service: OrderService) -> int:
        self.requests += 1
        await self.may.wait()
        if self._fault:
            raise self._fault
        return self.requests


def test_all_who_ask_at_once_share_an_answer(make: Any) -> None:
    async def main() -> tuple[set[int], int]:
        broker = _Broker()
        depths = Depths(broker.ask)
        asking = [asyncio.create_task(depths.series([make()])) for _ in range(9)]
        await asyncio.sleep(0)
        broker.may.set()
        return {series.value for (series,) in await asyncio.gather(*asking)}, broker.requests

    assert _run(main()) == ({1}, 1)


def test_who_goes_away_does_not_take_the_answer_from_others(make: Any) -> None:
    async def main() -> int:
        broker = _Broker()
        depths = Depths(broker.ask)
        first, second = (asyncio.create_task(depths.series([make()])) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        broker.may.set()
        (series,) = await second
        return series.value

    assert _run(main()) == 1


def test_an_answer_is_asked_for_anew_after_a_second(make: Any) -> None:
    async def main() -> list[int]:
        broker = _Broker()
        broker.may.set()
        depths, values = Depths(broker.ask), list[int]()
        while len(set(values)) < 2:
            values += [series.value for series in await depths.series([make()])]
            await asyncio.sleep(0.05)
        return values

    values = _run(main())
    assert values[:2] == [1, 1]
    assert values[-1] == 2


def test_one_depth_that_is_not_known_leaves_no_sum_of_the_others(make: Any) -> None:
    async def main() -> None:
        broker = _Broker(Transient("down"))
        broker.may.set()
        await Depths(broker.ask).series([make(), make("full")])

    with pytest.raises(Transient):
        _run(main())
