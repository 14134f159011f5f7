"""Budgets and autoscalers that agree with what they are for."""

import math
from collections.abc import Iterator
from typing import Any

from charts.policies import Manifest


def contradictions(manifests: list[Manifest]) -> list[str]:
    """Return descriptions of what does not fit together."""
    return [*_budgets(manifests), *_autoscalers(manifests)]


def _budgets(manifests: list[Manifest]) -> Iterator[str]:
    for budget in _of_kind(manifests, "PodDisruptionBudget"):
        name, spec = budget["metadata"]["name"], budget["spec"]
        selected = [
            workload for workload in _workloads(manifests) if _selects(spec["selector"], workload)
        ]
        if len(selected) != 1:
            yield f"the budget {name} selects the pods of {len(selected)} workloads"
            continue
        fewest, maximum = _bounds(manifests, selected[0])
        spare = spec.get("maxUnavailable", fewest - spec.get("minAvailable", 0))
        if min(spare, fewest) < 1:
            yield f"the budget {name} lets none of {fewest} pods go"
        if spare >= maximum:
            yield f"the budget {name} lets all of {maximum} pods go"


def _autoscalers(manifests: list[Manifest]) -> Iterator[str]:
    deployments = {
        deployment["metadata"]["name"]: deployment
        for deployment in _of_kind(manifests, "Deployment")
    }
    for scaler in _of_kind(manifests, "HorizontalPodAutoscaler"):
        name, spec = scaler["metadata"]["name"], scaler["spec"]
        target = spec["scaleTargetRef"]
        if target["kind"] != "Deployment" or target["name"] not in deployments:
            yield f"the autoscaler {name} has no Deployment"
        elif "replicas" in deployments[target["name"]]["spec"]:
            yield f"the autoscaler {name} is not the only one who says how many pods there are"
        if not 1 <= spec["minReplicas"] <= spec["maxReplicas"]:
            yield f"the autoscaler {name} has less room than none"


def _bounds(manifests: list[Manifest], workload: Manifest) -> tuple[int, float]:
    """Return how many pods a workload has at least and at most.

    A workload without a number has as many as an autoscaler or a person sets.
    """
    for kind, fewest, maximum in (
        ("HorizontalPodAutoscaler", "minReplicas", "maxReplicas"),
        ("ScaledObject", "minReplicaCount", "maxReplicaCount"),
    ):
        for scaler in _of_kind(manifests, kind):
            spec = scaler["spec"]
            if spec["scaleTargetRef"]["name"] == workload["metadata"]["name"]:
                return spec[fewest], spec[maximum]
    replicas = workload["spec"].get("replicas")
    return (1, math.inf) if replicas is None else (replicas, replicas)


def _selects(selector: dict[str, Any], workload: Manifest) -> bool:
    labels = workload["spec"]["template"]["metadata"]["labels"]
    return bool(selector["matchLabels"].items() <= labels.items())


def _workloads(manifests: list[Manifest]) -> list[Manifest]:
    return [*_of_kind(manifests, "Deployment"), *_of_kind(manifests, "StatefulSet")]


def _of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]
