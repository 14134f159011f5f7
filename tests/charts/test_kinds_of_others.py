"""Prometheus operator's and External Secrets' own definitions accept the objects made for them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from charts import definitions as engines
from charts.conftest import Shell, make_namespace
from charts.helm import ENVIRONMENT, OPERATOR, Failed, Helm, only, values_of
from kube.api import Api
from orderservice_operator.children.context import Context
from orderservice_operator.children.desired import desired
from orderservice_operator.children.kinds import PROMETHEUS_RULE, SERVICE_MONITOR
from orderservice_operator.resource.spec import OrderService

DEFINITIONS = Path(__file__).parent / "crds"
NAMESPACE = "others"
GROUPS = ("monitoring.coreos.com", "external-secrets.io", "postgresql.cnpg.io", "rabbitmq.com")
KINDS = (
    "ServiceMonitor",
    "PrometheusRule",
    "ExternalSecret",
    "Cluster",
    "Pooler",
    "RabbitmqCluster",
)
ENGINES = (
    "--set=postgresql.enabled=true,postgresql.provider=CloudNativePG,postgresql.storage=20Gi",
    "--set=postgresql.pooler.enabled=true,postgresql.password=secret,storageClass=fast",
    "--set=rabbitmq.enabled=true,rabbitmq.provider=ClusterOperator,rabbitmq.storage=10Gi",
)


@pytest.fixture(scope="module")
def definitions(api: Api, shell: Shell) -> Iterator[None]:
    """Install the definitions, and take them away again: an operator would use the kinds."""
    make_namespace(api, NAMESPACE)
    paths = " ".join(f"--filename {path}" for path in (DEFINITIONS, *engines.files()))
    shell(f"kubectl apply --server-side {paths}")
    shell(f"kubectl wait --for=condition=Established --timeout=50s {paths}")
    yield
    shell(f"kubectl delete {paths}")


def manifests_of_others(helm: Helm) -> list[dict[str, Any]]:
    """Return everything of the other projects' kinds, of both charts and of the operator."""
    on = "--set=serviceMonitor.enabled=true,prometheusRule.enabled=true"
    operator = helm.template(OPERATOR, on)
    production = helm.template(
        ENVIRONMENT, *values_of("prod"), "--set=externalSecrets.enabled=true"
    )
    resource = only(production, "OrderService")
    resource["metadata"] |= {"uid": "u-1", "generation": 1}
    context = Context(kinds=frozenset({SERVICE_MONITOR, PROMETHEUS_RULE}))
    children = desired(msgspec.convert(resource, OrderService), context)
    clusters = helm.template(ENVIRONMENT, *values_of("prod"), *ENGINES)
    manifests = (*operator, *production, *children, *clusters)
    return [manifest for manifest in manifests if manifest["apiVersion"].startswith(GROUPS)]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def applied(shell: Shell, folder: Path, manifests: list[dict[str, Any]]) -> str:
    """Return what the API server makes of manifests in a dry run that refuses unknown fields."""
    file = folder / "manifests.yaml"
    file.write_text(yaml.safe_dump_all(manifests))
    command_here = f"sed 's/namespace: shop$/namespace: {NAMESPACE}/' {file}"
    return shell(
        f"{command_here} | kubectl apply --dry-run=server --validate=strict --filename - 2>&1"
    )


def test_they_are_taken(
    helm4: Helm, shell: Shell, definitions: None, tmp_path: Path, kind: str
) -> None:
    manifests = [manifest for manifest in manifests_of_others(helm4) if manifest["kind"] == kind]
    output = applied(shell, tmp_path, manifests).splitlines()
    assert len(output) == len(manifests) > 0
    assert all(line.endswith("created (server dry run)") for line in output)


def test_a_field_that_they_do_not_know_is_refused(
    helm4: Helm, shell: Shell, definitions: None, tmp_path: Path, kind: str
) -> None:
    manifest = next(
        candidate for candidate in manifests_of_others(helm4) if candidate["kind"] == kind
    )
    manifest["spec"]["misspelt"] = 1
    with pytest.raises(AssertionError, match=r'unknown field "spec\.misspelt"'):
        applied(shell, tmp_path, [manifest])


def test_the_resource_reads_the_secrets_that_the_engines_have(helm: Helm) -> None:
    simulators = "--set=nameOverride=orders,simulators.enabled=true,developmentPassword=d"
    manifests = helm.template(ENVIRONMENT, *ENGINES, simulators)
    spec = only(manifests, "OrderService")["spec"]
    entries = only(manifests, "Secret", "orders-database")
    assert entries["type"] == "kubernetes.io/basic-auth"
    assert entries["stringData"] == {
        "username": "orders",
        "password": "secret",
        "url": "postgresql://orders:secret@orders-postgresql-pooler:5432/orders",
        "sessionUrl": "postgresql://orders:secret@orders-postgresql-rw:5432/orders",
        "replicaUrl": "postgresql://orders:secret@orders-postgresql-ro:5432/orders",
    }
    database = spec["database"]
    assert database["durability"] == "Synchronous"
    references = {
        database[f"{name}SecretRef"].get("key") for name in ("primary", "replica", "session")
    }
    assert references == {None, "replicaUrl", "sessionUrl"}
    user = "orders-rabbitmq-default-user"
    assert spec["messaging"]["secretRef"] == {"name": user, "key": "connection_string"}
    # The host of its URL: the operator sends the password to no other.
    assert spec["messaging"]["managementUrl"] == "http://orders-rabbitmq.shop.svc:15672"
    cluster = only(manifests, "Cluster")
    assert cluster["spec"]["minSyncReplicas"] == 1
    assert cluster["spec"]["bootstrap"]["initdb"]["secret"] == {"name": "orders-database"}
    assert not [each for each in manifests if each["kind"] == "StatefulSet"]


def test_standbys_that_are_waited_for_must_be_there(helm4: Helm) -> None:
    with pytest.raises(Failed, match="minSyncReplicas 3 needs more than 3"):
        helm4.template(
            ENVIRONMENT, *values_of("prod"), *ENGINES, "--set=postgresql.minSyncReplicas=3"
        )


def test_a_secret_for_the_management_api_says_so(helm: Helm) -> None:
    production = helm.template(
        ENVIRONMENT, *values_of("prod"), "--set=externalSecrets.enabled=true"
    )
    topology = only(production, "ExternalSecret", "orders-topology")
    assert topology["spec"]["target"]["template"] == {"type": "kubernetes.io/basic-auth"}
    messaging = only(helm.template(ENVIRONMENT, *values_of("dev")), "Secret", "orders-messaging")
    assert messaging["metadata"]["labels"]["orders.platform.dev/management"] == "true"
