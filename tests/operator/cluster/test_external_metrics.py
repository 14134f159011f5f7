"""The worker scales with a real queue: the real HPA controller asks this operator through the API.

There is no DNS and no pod network here: the Service in front of the operator is an ExternalName.
"""

import base64
import datetime as dt
import http.client
import http.server
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import msgspec
import pika
import pytest
import requests
import yaml
from brokers import PASSWORD, Rabbit
from command import Orderctl
from cryptography import x509

from control_plane.plane import ControlPlane, free_ports
from devstack.servers import rabbitmq
from kube.api import Api, Object
from kube.nodes import Nodes
from orderservice_operator.children.context import QUEUE_METRIC
from orderservice_operator.external_metrics import (
    address,
    certificates,
    documents,
    identity,
    registration,
)
from orderservice_operator.external_metrics.documents import GROUP_VERSION

Example = Callable[..., Object]
SERVICES = ("orders.platform.dev/v1alpha1", "orderservices")
AUTOSCALERS = ("autoscaling/v2", "horizontalpodautoscalers")
API_SERVICES = ("apiregistration.k8s.io/v1", "apiservices")
HOME, NAME = "orders-system", "orderservice-operator-external-metrics"
QUEUE = "order-processing"
PER_POD = 10


@pytest.fixture(scope="module")
def ports() -> list[int]:
    """Choose where two replicas serve."""
    return free_ports(2)


@pytest.fixture(scope="module")
def home(api: Api, own_plane: ControlPlane, ports: list[int]) -> Iterator[address.ServiceAddress]:
    """Make what the operator's chart makes: the Service, and the right to keep a certificate."""
    assert own_plane  # elsewhere our ExternalName would lead into the cluster, not here
    manifest = service(NAME, "localhost")
    manifest["metadata"]["labels"] = {"app.kubernetes.io/name": "orderservice-operator"}
    api.apply(manifest, HOME)
    role = Path(registration.__file__).parents[1] / "rbac" / "external_metrics_role.yaml"
    api.apply(yaml.safe_load(role.read_text()), HOME)
    account = {"kind": "ServiceAccount", "name": "orderservice-operator", "namespace": HOME}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": NAME},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME},
        "subjects": [account],
    }
    api.apply(binding, HOME)
    yield address.ServiceAddress(HOME, NAME, ports[0])
    if api.exists(*API_SERVICES, "", registration.NAME):
        api.delete(*API_SERVICES, "", registration.NAME)


def service(name: str, host: str) -> Object:
    """Return a Service that is somewhere outside."""
    spec = {"type": "ExternalName", "externalName": host}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def start(
    start_operator: Any, home: address.ServiceAddress, ports: list[int]
) -> Callable[..., Any]:
    """Start a replica that serves external metrics."""

    def started(number: int, **environ: str) -> Any:
        return start_operator(
            f"metrics-{number}",
            OPERATOR_EXTERNAL_METRICS_SERVICE=str(home),
            OPERATOR_EXTERNAL_METRICS_PORT=str(ports[number]),
            OPERATOR_LEASE="orders-system/external-metrics",
            OPERATOR_TOPOLOGY_S="2",
            OPERATOR_DISCOVERY_S="1",
            OPERATOR_RESYNC_S="2",
            **environ,
        )

    return started


@pytest.fixture(scope="module")
def replica(start: Callable[..., Any]) -> Iterator[Any]:
    """Run one replica of the operator."""
    operator = start(0)
    yield operator
    operator.stop()


class Shop:
    """A resource with an autoscaled worker and a queue, in its own namespace."""

    def __init__(self, api: Api, namespace: str, rabbit: Rabbit, example: Example) -> None:
        self.api, self.namespace, self.rabbit = api, namespace, rabbit
        self._example = example
        self.vhost = quote(namespace, safe="")

    def apply(self, **autoscaling: Any) -> None:
        """Apply the resource; keywords go into the worker's `autoscaling`."""
        self.api.apply(self.manifest(**autoscaling), self.namespace, manager="kubectl")

    def manifest(self, **autoscaling: Any) -> Object:
        """Return the manifest of the resource, with the broker's address."""
        section = {"minReplicas": 1, "maxReplicas": 6, "queueLengthPerPod": PER_POD} | autoscaling
        messaging = {
            "managementUrl": self.rabbit.url,
            "managementSecretRef": {"name": "management"},
            "vhost": self.namespace,
        }
        return self._example(messaging=messaging, worker={"replicas": 3, "autoscaling": section})

    def bound(self) -> bool:
        """Return whether what is published gets into the queue."""
        bindings = self.rabbit.call("GET", f"queues/{self.vhost}/{QUEUE}/bindings")
        return "order.created.v1" in {binding["routing_key"] for binding in bindings}

    def fill(self, count: int) -> None:
        """Publish messages to the queue of created orders."""
        address = f"exchanges/{self.vhost}/orders/publish"
        message = {
            "properties": {"delivery_mode": 2},
            "routing_key": "order.created.v1",
            "payload": "{}",
            "payload_encoding": "string",
        }
        for _ in range(count):
            assert self.rabbit.call("POST", address, json=message) == {"routed": True}

    def empty(self) -> None:
        """Remove all messages from the queue."""
        self.rabbit.call("DELETE", f"queues/{self.vhost}/{QUEUE}/contents")

    def condition(self) -> tuple[str, str]:
        """Return the condition AutoscalingActive."""
        status = self.api.get(*SERVICES, self.namespace, "minimal").get("status", {})
        for condition in status.get("conditions", []):
            if condition["type"] == "AutoscalingActive":
                return condition["status"], condition["reason"]
        return "", ""

    def scaled_by(self) -> str:
        """Return who scales the worker, by the autoscaler that is there."""
        if self.api.exists("keda.sh/v1alpha1", "scaledobjects", self.namespace, "minimal-worker"):
            return "KEDA"
        if not self.api.exists(*AUTOSCALERS, self.namespace, "minimal-worker"):
            return ""
        autoscaler = self.api.get(*AUTOSCALERS, self.namespace, "minimal-worker")
        return str(autoscaler["metadata"]["annotations"]["orders.platform.dev/metrics-provider"])

    def ready(self) -> bool:
        """Return whether all pods are what is to run."""
        revisions = self.api.list("apps/v1", "controllerrevisions", self.namespace)
        return any(revision["metadata"]["name"].startswith("minimal-") for revision in revisions)

    def workers(self) -> int:
        """Return how many workers are wanted."""
        deployment = self.api.get("apps/v1", "deployments", self.namespace, "minimal-worker")
        count: int = deployment["spec"]["replicas"]
        return count

    def depth(self) -> int | None:
        """Read the depth as an autoscaler does; None for an error, or for no value."""
        answer = self.ask(f"orderservice=minimal,queue={QUEUE}")
        items = answer.json()["items"] if answer.ok else []
        return int(items[0]["value"]) if items else None

    def ask(self, selector: str, metric: str = QUEUE_METRIC) -> requests.Response:
        """Request a metric."""
        path = f"/apis/{GROUP_VERSION}/namespaces/{self.namespace}/{metric}"
        return self.api.session.get(
            self.api.url + path, params={"labelSelector": selector}, timeout=30
        )


@pytest.fixture
def shop(
    api: Api, namespace: str, nodes: Nodes, rabbit: Rabbit, example: Example
) -> Iterator[Shop]:
    """Prepare a namespace and a virtual host for a resource."""
    assert nodes
    prepared = Shop(api, namespace, rabbit, example)
    rabbit.call("PUT", f"vhosts/{prepared.vhost}")
    for name, entries in (
        ("management", {"username": rabbitmq.USER, "password": PASSWORD}),
        ("orders-messaging", {"url": rabbit.amqp_url(namespace)}),
    ):
        labels = {"orders.platform.dev/management": "true"}
        metadata = {"name": name, "labels": labels}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}
        api.apply(secret | {"stringData": entries}, namespace)
    yield prepared
    rabbit.call("DELETE", f"vhosts/{prepared.vhost}")


@pytest.fixture
def scaled_shop(shop: Shop, replica: Any) -> Shop:
    """Give a resource that the operator scales."""
    assert replica
    shop.apply(provider="Builtin")
    shop.api.wait(lambda: shop.depth() is not None and shop.bound())
    return shop


def test_workers_follow_the_queue(scaled_shop: Shop, figure: Callable[[str, float], None]) -> None:
    scaled_shop.api.wait(lambda: scaled_shop.condition() == ("True", "Builtin"))
    # An autoscaler that looks before all are there chooses 4, and changes that only beyond its
    # tolerance of 10 %.
    scaled_shop.fill(4 * PER_POD + 5)
    figure("queue_to_more_workers_s", scaled_shop.api.wait(lambda: scaled_shop.workers() == 5))
    scaled_shop.empty()
    figure("queue_to_fewer_workers_s", scaled_shop.api.wait(lambda: scaled_shop.workers() == 1))


def test_messages_being_worked_on_count(scaled_shop: Shop) -> None:
    scaled_shop.fill(3)
    connection = pika.BlockingConnection(
        pika.URLParameters(scaled_shop.rabbit.amqp_url(scaled_shop.namespace))
    )
    try:
        deliveries = [connection.channel().basic_get(QUEUE) for _ in range(2)]
        assert all(method is not None for method, _, _ in deliveries)
        scaled_shop.api.wait(lambda: scaled_shop.depth() == 3)
        time.sleep(6)  # longer than a tick of the queue: what was taken would be missing now
        assert scaled_shop.depth() == 3
    finally:
        connection.close()


def test_a_broker_that_is_dead_leaves_the_workers_as_many_as_they_are(scaled_shop: Shop) -> None:
    scaled_shop.fill(3 * PER_POD)
    scaled_shop.api.wait(lambda: scaled_shop.workers() == 3)
    scaled_shop.rabbit.node.pause()
    try:
        scaled_shop.api.wait(lambda: scaled_shop.depth() is None)
        answer = scaled_shop.ask("orderservice=minimal")
        assert (answer.status_code, answer.json()["reason"]) == (503, "ServiceUnavailable")
        scaled_shop.api.wait(
            lambda: scaled_shop.condition() == ("False", "FailedGetExternalMetric")
        )
        time.sleep(10)  # longer than the stabilisation of this control plane: 0 would have shown
        assert scaled_shop.workers() == 3
    finally:
        scaled_shop.rabbit.node.resume()
    scaled_shop.api.wait(lambda: scaled_shop.condition() == ("True", "Builtin"))


def test_what_is_asked_wrongly_gets_an_error_that_kubernetes_reads(scaled_shop: Shop) -> None:
    unknown, unreadable = scaled_shop.ask("", "other_metric"), scaled_shop.ask("a b")
    assert (unknown.status_code, unknown.json()["kind"]) == (404, "Status")
    assert (unreadable.status_code, unreadable.json()["reason"]) == (400, "BadRequest")
    assert scaled_shop.ask("orderservice=other").json()["items"] == []


def test_the_metric_is_discovered(scaled_shop: Shop) -> None:
    groups = scaled_shop.api.session.get(f"{scaled_shop.api.url}/apis", timeout=30).json()["groups"]
    assert "external.metrics.k8s.io" in {group["name"] for group in groups}
    group_version = scaled_shop.api.session.get(
        f"{scaled_shop.api.url}/apis/{GROUP_VERSION}", timeout=30
    ).json()
    assert [resource["name"] for resource in group_version["resources"]] == [QUEUE_METRIC]


def call(
    home: address.ServiceAddress, port: int, pem: str, chain: tuple[str, str] | None
) -> tuple[int, Any]:
    """Request a replica's discovery document, past the API server."""
    name, _ = home.server_names
    trusting = ssl.create_default_context(cadata=pem)
    if chain:
        trusting.load_cert_chain(*chain)
    plain = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection = http.client.HTTPSConnection(name)
    connection.sock = trusting.wrap_socket(plain, server_hostname=name)
    try:
        connection.request("GET", f"/apis/{GROUP_VERSION}")
        answer = connection.getresponse()
        return answer.status, msgspec.json.decode(answer.read())
    finally:
        connection.close()


def authorities(api: Api) -> str:
    """Return what the API server trusts the operator by."""
    registered_service = api.get(*API_SERVICES, "", registration.NAME)
    return base64.b64decode(registered_service["spec"]["caBundle"]).decode()


def test_only_the_aggregation_layer_may_call(
    scaled_shop: Shop, home: address.ServiceAddress, own_plane: ControlPlane, ports: list[int]
) -> None:
    pem = authorities(scaled_shop.api)
    code, body = call(home, ports[0], pem, own_plane.front_proxy_certificate())
    assert (code, body["kind"]) == (200, "APIResourceList")
    for chain in (None, own_plane.front_proxy_certificate("somebody")):
        code, body = call(home, ports[0], pem, chain)
        assert (code, body["kind"], body["reason"]) == (401, "Status", "Unauthorized")
    stem = str(own_plane.kubeconfig.with_suffix(""))
    with pytest.raises((ssl.SSLError, ConnectionError)):  # an administrator, but of another CA
        call(home, ports[0], pem, (f"{stem}.crt", f"{stem}.key"))


def test_every_replica_serves_the_same(
    scaled_shop: Shop,
    home: address.ServiceAddress,
    own_plane: ControlPlane,
    ports: list[int],
    start: Any,
) -> None:
    second = start(1)
    try:
        scaled_shop.api.wait(lambda: listening(ports[1]))
        assert served_certificate(ports[0]) == served_certificate(ports[1])
        pem, chain = authorities(scaled_shop.api), own_plane.front_proxy_certificate()
        assert call(home, ports[0], pem, chain) == call(home, ports[1], pem, chain)
    finally:
        second.stop()


def listening(port: int) -> bool:
    """Return whether a server listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def served_certificate(port: int) -> str:
    """Return the certificate that a replica shows."""
    return ssl.get_server_certificate(("127.0.0.1", port))


def test_a_deleted_certificate_is_replaced_and_no_request_fails(
    scaled_shop: Shop, ports: list[int]
) -> None:
    certificate_before = served_certificate(ports[0])
    scaled_shop.api.delete("v1", "secrets", HOME, f"{NAME}-tls")
    answers: list[int | None] = []

    def replaced() -> bool:
        answers.append(scaled_shop.depth())
        return served_certificate(ports[0]) != certificate_before

    scaled_shop.api.wait(replaced)
    end = time.monotonic() + 3
    while time.monotonic() < end:
        answers.append(scaled_shop.depth())
    assert set(answers) == {0}


def test_a_certificate_that_ends_soon_is_renewed(
    scaled_shop: Shop, home: address.ServiceAddress, ports: list[int]
) -> None:
    now = dt.datetime.now(dt.UTC)
    ending = certificates.issue(home.server_names, now, lifetime=dt.timedelta(hours=1))
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"{NAME}-tls"}}
    scaled_shop.api.apply(secret | {"data": identity.data_of(ending)}, HOME)

    def renewed() -> bool:
        data = scaled_shop.api.get("v1", "secrets", HOME, f"{NAME}-tls")["data"]
        return (
            identity.pair_of(data) != ending and served_certificate(ports[0]) != ending.certificate
        )

    scaled_shop.api.wait(renewed)
    expiry = x509.load_pem_x509_certificate(
        served_certificate(ports[0]).encode()
    ).not_valid_after_utc
    assert expiry - now > dt.timedelta(days=80)
    scaled_shop.api.wait(lambda: scaled_shop.depth() == 0)


def test_what_nobody_needs_is_not_registered(scaled_shop: Shop) -> None:
    scaled_shop.apply(provider="External")
    scaled_shop.api.wait(lambda: not registered(scaled_shop.api))
    scaled_shop.api.wait(lambda: scaled_shop.condition() == ("False", "NoExternalMetrics"))


def registered(api: Api) -> bool:
    """Return whether a server of external metrics is registered."""
    return api.exists(*API_SERVICES, "", registration.NAME)


@pytest.fixture
def keda(api: Api) -> Iterator[None]:
    """Install KEDA's definitions without KEDA."""
    names = {"ScaledObject": "scaledobjects", "TriggerAuthentication": "triggerauthentications"}

    def served_kinds() -> list[bool]:
        return [api.knows("keda.sh/v1alpha1", plural) for plural in names.values()]

    for kind, plural in names.items():
        api.apply(definition(kind, plural))
    api.wait(lambda: all(served_kinds()), within_s=60)
    yield
    for plural in names.values():
        api.delete("apiextensions.k8s.io/v1", "customresourcedefinitions", "", f"{plural}.keda.sh")
    api.wait(lambda: not any(served_kinds()), within_s=60)


def definition(kind: str, plural: str) -> Object:
    """Return a kind that may have any content."""
    any_object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1alpha1", "served": True, "storage": True}
    version |= {"schema": {"openAPIV3Schema": any_object}, "subresources": {"status": {}}}
    names = {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"}
    spec = {"group": "keda.sh", "scope": "Namespaced", "names": names, "versions": [version]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.keda.sh"},
        "spec": spec,
    }


def test_an_add_on_that_is_taken_away_leaves_the_operator_ready(api: Api, replica: Any) -> None:
    def probe() -> requests.Response:
        return requests.get(f"http://127.0.0.1:{replica.admin_port}/readyz", timeout=30)

    def text() -> str:
        return str(replica.log.read_text())

    plural, version = "scaledobjects", "keda.sh/v1alpha1"
    api.apply(definition("ScaledObject", plural))
    api.wait(lambda: '"watch.begun"' in text() and "ScaledObject" in text(), within_s=60)
    api.delete("apiextensions.k8s.io/v1", "customresourcedefinitions", "", f"{plural}.keda.sh")
    api.wait(lambda: not api.knows(version, plural), within_s=60)
    api.wait(lambda: '"watch.left"' in text(), within_s=60)
    api.wait(lambda: probe().ok, within_s=60)


@pytest.mark.usefixtures("keda")
def test_another_provider_takes_the_workers_over_as_many_as_they_are(scaled_shop: Shop) -> None:
    scaled_shop.fill(3 * PER_POD)
    scaled_shop.api.wait(lambda: scaled_shop.workers() == 3)
    counts: set[int] = set()

    def scaled_by(version: str, plural: str, name: str) -> bool:
        counts.add(scaled_shop.workers())
        return scaled_shop.api.exists(version, plural, scaled_shop.namespace, name)

    keda = ("keda.sh/v1alpha1", "scaledobjects", "minimal-worker")
    builtin = (*AUTOSCALERS, "minimal-worker")
    scaled_shop.apply(provider="Auto")
    scaled_shop.api.wait(lambda: scaled_by(*keda) and not scaled_by(*builtin))
    scaled_shop.api.wait(lambda: scaled_shop.condition() == ("False", "NotLooked"))
    path = scaled_shop.api.path(
        "keda.sh/v1alpha1", "scaledobjects", scaled_shop.namespace, "minimal-worker"
    )
    ready = {"type": "Ready", "status": "True", "reason": "ScaledObjectReady", "message": ""}
    scaled_shop.api.patch(f"{path}/status", {"status": {"conditions": [ready]}})
    scaled_shop.api.wait(lambda: scaled_shop.condition() == ("True", "KEDA"))
    scaled_shop.apply(provider="Builtin")
    scaled_shop.api.wait(lambda: scaled_by(*builtin) and not scaled_by(*keda))
    scaled_shop.api.wait(lambda: scaled_shop.condition() == ("True", "Builtin"))
    assert counts | {scaled_shop.workers()} == {3}


class Adapter:
    """Another server of external metrics; a test decides whether it has the metric."""

    def __init__(self, folder: Path) -> None:
        self.value: int | None = None
        names = ("adapter.orders-system.svc",)
        self.pair = certificates.issue(names, dt.datetime.now(dt.UTC))
        chain = folder / "adapter.pem"
        chain.write_text(self.pair.certificate + self.pair.key)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def answer(self, path: str) -> tuple[int, Object]:
        """Return status and body for a request to the metrics API."""
        if path.split("?", maxsplit=1)[0].endswith(QUEUE_METRIC):
            if self.value is None:
                return 404, documents.failure(404, "no such metric")
            value = documents.Series({}, self.value, dt.datetime.now(dt.UTC))
            return 200, documents.values([value])
        return 200, documents.resources()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        adapter = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                code, content = adapter.answer(self.path)
                body = msgspec.json.encode(content)
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Write no log line for a request."""

        return Handler


@pytest.fixture
def adapter(api: Api, tmp_path: Path) -> Iterator[Adapter]:
    """Register another server."""
    api.wait(lambda: not registered(api))
    api.apply(service("adapter", "localhost"), HOME)
    with Adapter(tmp_path) as adapter:
        adapter_address = address.ServiceAddress(HOME, "adapter", adapter.port)
        api.apply(registration.api_service(adapter_address, adapter.pair.authorities))
        yield adapter
        if registered(api) and holds(api) == "adapter":
            api.delete(*API_SERVICES, "", registration.NAME)


def holds(api: Api) -> str:
    """Name the Service that serves external metrics."""
    name: str = api.get(*API_SERVICES, "", registration.NAME)["spec"]["service"]["name"]
    return name


def test_what_it_makes_for_itself_is_owned_by_its_role(scaled_shop: Shop) -> None:
    name = "orderservice-operator"
    role = scaled_shop.api.get("rbac.authorization.k8s.io/v1", "clusterroles", "", name)
    manifests = [
        scaled_shop.api.get(*API_SERVICES, "", registration.NAME),
        scaled_shop.api.get("v1", "secrets", HOME, f"{NAME}-tls"),
        scaled_shop.api.get("coordination.k8s.io/v1", "leases", HOME, "external-metrics"),
    ]
    owners = [
        [owner["uid"] for owner in manifest["metadata"]["ownerReferences"]]
        for manifest in manifests
    ]
    assert owners == [[role["metadata"]["uid"]]] * 3


@pytest.mark.usefixtures("replica")
def test_another_server_is_never_pushed_aside_and_used_once_it_answers(
    adapter: Adapter, shop: Shop
) -> None:
    shop.apply(provider="Builtin")
    shop.api.wait(lambda: shop.condition() == ("False", "HeldByOther"))
    shop.apply(provider="Auto")
    shop.api.wait(lambda: shop.condition() == ("False", "NoProvider"))
    assert holds(shop.api) == "adapter"
    adapter.value = 4 * PER_POD
    shop.api.wait(lambda: shop.condition() == ("True", "External"))
    shop.api.wait(lambda: shop.workers() == 4)
    adapter.value = None  # in use, it may fail for a while: the autoscaler sits it out
    shop.api.wait(lambda: shop.condition() == ("False", "FailedGetExternalMetric"))
    assert shop.api.exists(*AUTOSCALERS, shop.namespace, "minimal-worker")
    shop.api.delete(*API_SERVICES, "", registration.NAME)
    shop.api.wait(lambda: shop.condition() == ("True", "Builtin"))
    assert holds(shop.api) == NAME


def test_answers_are_counted(scaled_shop: Shop, replica: Any) -> None:
    text = requests.get(f"http://127.0.0.1:{replica.admin_port}/metrics", timeout=30).text
    assert 'orderservice_external_metrics_requests_total{code="200"}' in text
    assert scaled_shop.depth() == 0


@pytest.mark.usefixtures("replica")
@pytest.mark.parametrize(
    ("provider", "server", "scales"),
    [
        ("Builtin", "replica", "Builtin"),
        ("External", "adapter", "External"),
        ("Auto", "adapter", "External"),
        ("Auto", "keda", "KEDA"),
        ("Auto", "replica", "Builtin"),
    ],
)
def test_a_plan_of_what_is_there_is_empty_whoever_scales(
    provider: str,
    server: str,
    scales: str,
    shop: Shop,
    orderctl: Orderctl,
    request: pytest.FixtureRequest,
) -> None:
    fixture = request.getfixturevalue(server)
    if isinstance(fixture, Adapter):
        fixture.value = 4 * PER_POD
    planned = orderctl.changes(shop.manifest(provider=provider), shop.namespace)
    kind = "ScaledObject" if scales == "KEDA" else "HorizontalPodAutoscaler"
    assert ("create", kind, "minimal-worker") in planned
    shop.apply(provider=provider)
    shop.api.wait(lambda: shop.scaled_by() == scales, within_s=120)
    shop.api.wait(shop.ready, within_s=120)

    def nothing() -> bool:
        return orderctl.changes(shop.manifest(provider=provider), shop.namespace) == set()

    shop.api.wait(nothing, within_s=60)


def test_what_was_registered_goes_once_it_is_switched_off(
    scaled_shop: Shop, replica: Any, start_operator: Callable[..., Any]
) -> None:
    """The last test: an APIService without a server keeps namespaces from being deleted."""
    assert holds(scaled_shop.api) == NAME
    replica.stop()
    # It keeps the Lease: another installation would wait for a minute before it takes over.
    lease = "orders-system/external-metrics"
    start_operator("off", OPERATOR_LEASE=lease, OPERATOR_DISCOVERY_S="1", OPERATOR_RESYNC_S="2")
    scaled_shop.api.wait(lambda: not scaled_shop.api.exists(*API_SERVICES, "", registration.NAME))
    scaled_shop.api.wait(lambda: scaled_shop.condition() == ("False", "NotSetUp"))
