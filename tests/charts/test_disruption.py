"""No budget blocks a drain and no autoscaler is without a Deployment, in the charts and beyond."""

from typing import Any

import msgspec
import pytest

from charts.disruption import contradictions
from charts.helm import ENVIRONMENT, ENVIRONMENTS, OPERATOR, Helm, only, values_of
from orderservice_operator.children.context import Context, MetricsApi
from orderservice_operator.children.desired import desired
from orderservice_operator.resource.spec import OrderService

# With and without somebody who serves the depth of queues: with, the worker has an autoscaler too.
CONTEXTS = {
    "alone": Context(),
    "with external metrics": Context(metrics=MetricsApi("other", answers=True)),
}


def counted(manifests: list[dict[str, Any]], kind: str) -> int:
    return sum(manifest["kind"] == kind for manifest in manifests)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_what_the_operator_makes_of_an_environment_fits_together(
    helm4: Helm, environment: str, context: str
) -> None:
    rendered = helm4.template(ENVIRONMENT, *values_of(environment))
    manifest = only(rendered, "OrderService")
    manifest["metadata"] |= {"uid": "u-1", "generation": 1}
    children = desired(msgspec.convert(manifest, OrderService), CONTEXTS[context])
    assert contradictions([*rendered, *children]) == []
    assert counted(children, "HorizontalPodAutoscaler") == (1 if context == "alone" else 2)
    assert counted(children, "PodDisruptionBudget") >= (0 if environment == "dev" else 2)


@pytest.mark.parametrize("replicas", range(4))
def test_what_is_in_the_operators_chart_fits_together(helm4: Helm, replicas: int) -> None:
    manifests = helm4.template(OPERATOR, f"--set=replicas={replicas}")
    assert contradictions(manifests) == []
    assert counted(manifests, "PodDisruptionBudget") == (replicas > 1)


def workload(replicas: int | None) -> dict[str, Any]:
    template = {"metadata": {"labels": {"a": "b"}}}
    count = {} if replicas is None else {"replicas": replicas}
    return {"kind": "Deployment", "metadata": {"name": "d"}, "spec": {"template": template} | count}


def budget(**spec: int) -> dict[str, Any]:
    selector = {"selector": {"matchLabels": {"a": "b"}}}
    return {"kind": "PodDisruptionBudget", "metadata": {"name": "p"}, "spec": selector | spec}


def scaler(least: int, maximum: int, target: str = "d") -> dict[str, Any]:
    reference = {"kind": "Deployment", "name": target}
    spec = {"minReplicas": least, "maxReplicas": maximum, "scaleTargetRef": reference}
    return {"kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": spec}


@pytest.mark.parametrize(
    ("manifests", "text"),
    [
        ([workload(2), budget(minAvailable=2)], "lets none of 2 pods go"),
        ([workload(None), scaler(1, 5), budget(minAvailable=1)], "lets none of 1 pods go"),
        ([workload(2), budget(maxUnavailable=0)], "lets none of 2 pods go"),
        ([workload(1), budget(maxUnavailable=1)], "lets all of 1 pods go"),
        ([budget(maxUnavailable=1)], "selects the pods of 0 workloads"),
        ([workload(None), scaler(3, 2)], "less room than none"),
        ([workload(None), scaler(1, 2, "other")], "has no Deployment"),
        ([workload(2), scaler(1, 2)], "not the only one"),
    ],
)
def test_a_contradiction_is_found(manifests: list[dict[str, Any]], text: str) -> None:
    (contradiction,) = contradictions(manifests)
    assert text in contradiction


def test_what_fits_is_not_complained_of() -> None:
    assert contradictions([workload(None), scaler(2, 5), budget(minAvailable=1)]) == []
