"""With `tls.secretName`, what the chart brings speaks TLS only, and its clients verify it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec
import pytest

from charts.helm import ENVIRONMENT, Helm, Manifest, only, values_of
from charts.policies import pod_spec
from charts.test_instructions import notes_of
from orders import verified
from orderservice_operator.children import environment, processes
from orderservice_operator.resource.spec import OrderService
from upstreams import settings

SECRET: Final = "orders-servers"
TLS: Final = f"--set=tls.secretName={SECRET},loadTest.enabled=true"
GATEWAY: Final = "--set=spec.api.gateway.tlsSecretRef.name="
SERVERS: Final = {"postgresql", "postgresql-replica", "rabbitmq", "valkey"}
SIMULATORS: Final = {"inventory", "payment", "webhooks"}
PLAIN_PORTS: Final = {5672, 15672}


@pytest.fixture(scope="module")
def secured(helm4: Helm) -> list[Manifest]:
    return helm4.template(ENVIRONMENT, *values_of("dev"), TLS, f"{GATEWAY}{SECRET}")


def entry(manifests: list[Manifest], component: str, key: str) -> str:
    text: str = only(manifests, "Secret", f"orders-{component}")["stringData"][key]
    return text


def addresses(manifests: list[Manifest]) -> dict[str, str]:
    """Return what the processes connect to, by the variables that they get."""
    spec = only(manifests, "OrderService")["spec"]
    return {
        "ORDERS_DATABASE_URL": entry(manifests, "database", "url"),
        "ORDERS_DATABASE_REPLICA_URL": entry(manifests, "database", "replicaUrl"),
        "ORDERS_REDIS_URL": entry(manifests, "cache", "url"),
        "ORDERS_AMQP_URL": entry(manifests, "messaging", "url"),
        "ORDERS_NOTIFICATION_URL": entry(manifests, "webhook", "url"),
        "ORDERS_MANAGEMENT_URL": spec["messaging"]["managementUrl"],
        "ORDERS_INVENTORY_URL": spec["upstreams"]["inventory"]["url"],
        "ORDERS_PAYMENT_URL": spec["upstreams"]["payment"]["url"],
    }


def ports_of(manifests: list[Manifest]) -> Mapping[str, set[int]]:
    """Return the ports of each Service, by the name that a wildcard of its namespace is for."""
    return {
        f"{manifest['metadata']['name']}.{manifest['metadata']['namespace']}.svc": {
            port["port"] for port in manifest["spec"]["ports"]
        }
        for manifest in manifests
        if manifest["kind"] == "Service"
    }


def test_every_connection_of_the_service_is_verified(helm4: Helm, secured: list[Manifest]) -> None:
    assert list(verified.faults(addresses(secured))) == []
    without = addresses(helm4.template(ENVIRONMENT, *values_of("dev")))
    assert {variable for variable, _ in verified.faults(without)} == set(without)


def test_the_service_connects_to_ports_that_are_there_by_names_of_the_certificate(
    secured: list[Manifest],
) -> None:
    ports = ports_of(secured)
    for variable, url in addresses(secured).items():
        parts = urlsplit(url)
        assert parts.port in ports[str(parts.hostname)], variable
    assert not PLAIN_PORTS & set().union(*ports.values())


def test_network_policies_let_the_service_and_the_operator_through(
    secured: list[Manifest],
) -> None:
    service = msgspec.convert(only(secured, "OrderService"), OrderService)
    broker, inventory, payment = (
        urlsplit(addresses(secured)[f"ORDERS_{name}_URL"]).port
        for name in ("AMQP", "INVENTORY", "PAYMENT")
    )
    expected = {
        process.name: set(environment.outgoing_ports(service, process)) for process in processes.ALL
    }
    for process in ("relay", "worker", "notifier"):
        assert broker in expected[process]
    assert {inventory, payment} <= expected["worker"]
    incoming = only(secured, "NetworkPolicy", "orders-servers")["spec"]["ingress"]
    (management,) = (rule["ports"] for rule in incoming if "ports" in rule)
    assert [port["port"] for port in management] == [15671]


def test_every_pod_that_serves_or_verifies_has_the_certificates(secured: list[Manifest]) -> None:
    having: dict[str, set[str]] = {}
    for manifest in secured:
        pod = pod_spec(manifest)
        for container in [*pod.get("initContainers", []), *pod.get("containers", [])]:
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert mounts["tls"] == "/etc/tls"
        for volume in pod.get("volumes", []):
            secret = volume.get("secret", {})
            if secret.get("secretName") == SECRET:
                # Else PostgreSQL refuses its key; fsGroup adds the right to read to the group.
                assert secret["defaultMode"] == 0o400
                having.setdefault(manifest["kind"], set()).add(manifest["metadata"]["name"])
    servers = set().union(having.pop("Deployment"), having.pop("StatefulSet"))
    assert servers == {f"orders-{name}" for name in SERVERS | SIMULATORS}
    jobs = {name.rpartition("-")[0] for name in having.pop("Job")}
    assert jobs == {"orders-load-master", "orders-load-worker", "orders-roles"}
    assert having == {"Pod": {"orders-test"}}


def test_the_service_trusts_the_authority_of_the_secret_or_the_one_that_is_given(
    helm4: Helm, secured: list[Manifest]
) -> None:
    bundle = only(secured, "OrderService")["spec"]["caBundleSecretRef"]
    assert bundle == {"name": SECRET, "key": "ca.crt"}
    own = "--set=spec.caBundleSecretRef.name=authorities"
    resource = only(helm4.template(ENVIRONMENT, *values_of("dev"), TLS, own), "OrderService")
    assert resource["spec"]["caBundleSecretRef"]["name"] == "authorities"


def test_the_simulators_know_the_variables_that_they_get(secured: list[Manifest]) -> None:
    for name in SIMULATORS:
        (container,) = pod_spec(only(secured, "Deployment", f"orders-{name}"))["containers"]
        variables = {
            variable["name"]: variable.get("value", "whsec_") for variable in container["env"]
        }
        loaded = settings.load(variables, default_port=1)
        fields = {f"{settings.PREFIX}{field.upper()}" for field in loaded.__struct_fields__}
        assert variables.keys() <= fields
        files = [value for value in variables.values() if value.startswith("/etc/tls/")]
        assert len(files) == 2
        probes = ("startupProbe", "readinessProbe", "livenessProbe")
        assert {container[probe]["httpGet"]["scheme"] for probe in probes} == {"HTTPS"}


def script(manifests: list[Manifest]) -> str:
    (container,) = only(manifests, "Pod")["spec"]["containers"]
    text: str = container["command"][-1]
    compile(text, "test", "exec")
    return text


def test_helm_test_and_the_load_test_ask_the_api_as_it_speaks(
    helm4: Helm, secured: list[Manifest]
) -> None:
    load = only(secured, "ConfigMap", "orders-load")["data"]
    assert load["LOADTEST_ALLOWED_HOSTS"] == "orders-api.shop.svc"
    assert load["LOADTEST_PAYMENT_URL"] == "https://orders-payment.shop.svc:8092"
    assert load["SSL_CERT_FILE"] == "/etc/tls/ca.crt"
    master = pod_spec(only(secured, "Job", "orders-load-master-first"))["containers"][0]
    assert "https://orders-api.shop.svc" in master["command"]
    assert 'create_default_context(cafile="/etc/tls/ca.crt")' in script(secured)
    # A certificate for the host that clients name is for no Service.
    other = helm4.template(ENVIRONMENT, *values_of("dev"), f"{GATEWAY}public")
    assert 'base = "https://orders-api.shop.svc"' in script(other)
    assert "_create_unverified_context()" in script(other)


@pytest.mark.parametrize(
    ("option", "ports"), [(f"{GATEWAY}public", "8443:443"), ("--set=tls.secretName=t", "8080:80")]
)
def test_the_notes_forward_to_the_port_that_the_api_has(
    helm4: Helm, tmp_path: Path, option: str, ports: str
) -> None:
    notes = notes_of(helm4, ENVIRONMENT, tmp_path, *values_of("dev"), option)
    assert f"port-forward service/orders-api {ports}" in notes


def test_servers_of_other_operators_are_as_they_were(helm4: Helm) -> None:
    options = (
        "--set=postgresql.enabled=true,postgresql.provider=CloudNativePG,postgresql.storage=1Gi",
        "--set=rabbitmq.enabled=true,rabbitmq.provider=ClusterOperator,rabbitmq.storage=1Gi",
        "--set=developmentPassword=d",
    )
    tls = f"--set=tls.secretName={SECRET}"
    assert helm4.template(ENVIRONMENT, *options, tls) == helm4.template(ENVIRONMENT, *options)


@pytest.mark.parametrize("provider", ["Pods", "CloudNativePG"])
def test_a_password_of_any_characters_is_the_same_in_every_url(helm4: Helm, provider: str) -> None:
    password = "a/b%20c?d#e@f:g&h i+j"
    options = f"--set=postgresql.provider={provider},postgresql.storage=1Gi"
    escaped = f"--set-string=developmentPassword={password}"
    manifests = helm4.template(ENVIRONMENT, *values_of("dev"), options, escaped)
    urls = [
        ("database", "url"), ("database", "replicaUrl"), ("cache", "url"), ("messaging", "url"),
    ]  # fmt: skip
    for component, key in urls:
        assert unquote(str(urlsplit(entry(manifests, component, key)).password)) == password, (
            component
        )
