"""What is made for Prometheus operator and External Secrets is taken by their own definitions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from control_plane.api import Api

from charts.conftest import Shell, make_namespace
from charts.helm import ENVIRONMENT, OPERATOR, Helm, only, values_of
from orderservice_operator.children.context import Context
from orderservice_operator.children.desired import desired
from orderservice_operator.children.kinds import PROMETHEUS_RULE, SERVICE_MONITOR
from orderservice_operator.resource.spec import OrderService

DEFINITIONS = Path(__file__).parent / "crds"
NAMESPACE = "others"
GROUPS = ("monitoring.coreos.com", "external-secrets.io")


@pytest.fixture(scope="module")
def definitions(api: Api, shell: Shell) -> Iterator[None]:
    """Install the definitions, and take them away again: an operator would use the kinds."""
    make_namespace(api, NAMESPACE)
    shell(f"kubectl apply --server-side --filename {DEFINITIONS}")
    shell(f"kubectl wait --for=condition=Established --timeout=30s --filename {DEFINITIONS}")
    yield
    shell(f"kubectl delete --filename {DEFINITIONS}")


def made(helm: Helm) -> list[dict[str, Any]]:
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
    everything = (*operator, *production, *children)
    return [one for one in everything if one["apiVersion"].startswith(GROUPS)]


@pytest.fixture(params=["ServiceMonitor", "PrometheusRule", "ExternalSecret"])
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def applied(shell: Shell, folder: Path, manifests: list[dict[str, Any]]) -> str:
    """Let the API server say what it would make of manifests; it knows every field, or refuses."""
    file = folder / "manifests.yaml"
    file.write_text(yaml.safe_dump_all(manifests))
    here = f"sed 's/namespace: shop$/namespace: {NAMESPACE}/' {file}"
    return shell(f"{here} | kubectl apply --dry-run=server --validate=strict --filename - 2>&1")


def test_they_are_taken(
    helm4: Helm, shell: Shell, definitions: None, tmp_path: Path, kind: str
) -> None:
    manifests = [one for one in made(helm4) if one["kind"] == kind]
    said = applied(shell, tmp_path, manifests).splitlines()
    assert len(said) == len(manifests) > 0
    assert all(line.endswith("created (server dry run)") for line in said)


def test_a_field_that_they_do_not_know_is_refused(
    helm4: Helm, shell: Shell, definitions: None, tmp_path: Path, kind: str
) -> None:
    manifest = next(one for one in made(helm4) if one["kind"] == kind)
    manifest["spec"]["misspelt"] = 1
    with pytest.raises(AssertionError, match=r'unknown field "spec\.misspelt"'):
        applied(shell, tmp_path, [manifest])
