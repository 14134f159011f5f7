"""The state of live objects, decoded into types."""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from orderservice_operator.children.autoscaler import PROVIDER_ANNOTATION
from orderservice_operator.children.kinds import SCALED_OBJECT, kind_of
from orderservice_operator.children.manifest import (
    GENERATION_ANNOTATION,
    REVISION_ANNOTATION,
    SECRETS_ANNOTATION,
    Manifest,
    Reference,
)
from orderservice_operator.children.processes import (
    ALL,
    Process,
    fewest_replicas,
    is_autoscaled,
    name_of,
)
from orderservice_operator.resource.spec import OrderService
from orderservice_operator.resource.status import PodCounts

# The children of a resource as the cluster has them.
LiveObjects = Mapping[Reference, Manifest]

_LATE: Final = "ProgressDeadlineExceeded"
_HINDRANCES: Final = (("Progressing", "False"), ("ReplicaFailure", "True"))
_GENERATED: Final = re.compile(r'(\bpods "[^"]+-)[a-z0-9]{5}"')
# Scalers, and the condition by which each says whether it can scale.
_SCALERS: Final = (
    ("autoscaling/v2", "HorizontalPodAutoscaler", "ScalingActive"),
    ("keda.sh/v1alpha1", SCALED_OBJECT, "Ready"),
)


class RolloutProgress(msgspec.Struct, frozen=True):
    """How far a Deployment has rolled out a revision.

    `problem` is a text on why it makes no progress; `late`: it missed its deadline.
    `serving`: no pod of another version is left, and there are at least as many as there have to
    be; an autoscaler may be adding more.
    """

    count: PodCounts
    done: bool
    problem: str = ""
    late: bool = False
    serving: bool = False


class Job(msgspec.Struct, frozen=True):
    """The progress of a Job.

    `generation` and `secrets` are those of the resource that it was created for. `uid` is set while
    it has not ended and has no pod.
    """

    complete: bool = False
    failed: str = ""
    generation: int = 0
    secrets: str = ""
    uid: str = ""


def rollout(
    service: OrderService, process: Process, objects: LiveObjects, revision: str
) -> RolloutProgress:
    """Return how far the Deployment of a process has rolled out a revision."""
    deployment = objects.get(_deployment(service, process))
    if deployment is None:
        return RolloutProgress(PodCounts(), done=False)
    spec, status = deployment["spec"], deployment.get("status") or {}
    is_current = _annotations(deployment).get(REVISION_ANNOTATION) == revision and (
        status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    )
    count = PodCounts(
        desired=spec.get("replicas", 1),
        ready=status.get("readyReplicas", 0),
        updated=status.get("updatedReplicas", 0),
    )
    available, existing = status.get("availableReplicas", 0), status.get("replicas", 0)
    of_one_version = is_current and not spec.get("paused", False) and count.updated == existing
    complete = of_one_version and count.desired == existing == available
    has_enough = is_autoscaled(service, process) and available >= fewest_replicas(service, process)
    problem = "" if complete else _problem(process, status)
    return RolloutProgress(
        count,
        complete,
        problem,
        late=is_current and _LATE in problem,
        serving=complete or (of_one_version and has_enough),
    )


def revisions(service: OrderService, objects: LiveObjects) -> set[str]:
    """Return the revisions of the Deployments."""
    deployments = (_deployment(service, process) for process in ALL)
    return {
        _annotations(objects[deployment]).get(REVISION_ANNOTATION, "")
        for deployment in deployments
        if deployment in objects
    }


def job(name: str, objects: LiveObjects) -> Job:
    """Return the progress of a Job."""
    body = objects.get(_reference("batch/v1", "Job", name))
    if body is None:
        return Job()
    status, annotations = body.get("status") or {}, _annotations(body)
    generation = annotations.get(GENERATION_ANNOTATION, "")
    progress = Job(
        # 0, which is no generation, if it is not a number.
        generation=int(generation) if re.fullmatch("[0-9]{1,18}", generation) else 0,
        secrets=annotations.get(SECRETS_ANNOTATION, ""),
    )
    for condition in status.get("conditions") or []:
        if condition["status"] == "True" and condition["type"] == "Complete":
            return msgspec.structs.replace(progress, complete=True)
        if condition["status"] == "True" and condition["type"] == "Failed":
            failure = f"{condition.get('reason')}: {condition.get('message')}"
            return msgspec.structs.replace(progress, failed=failure)
    uid = "" if status.get("active") else body["metadata"].get("uid", "")
    return msgspec.structs.replace(progress, uid=uid)


def without_generated_name(message: str) -> str:
    """Return why a pod was refused, without the random end of the pod's name.

    Each try of the Job's controller has a different name, and would write the status again.
    """
    return _GENERATED.sub(r'\1*"', message)


def secrets(service: OrderService, objects: LiveObjects) -> dict[str, str]:
    """Return the digests of Secrets that the pods of each process were created with."""
    templates = {
        process.name: objects[deployment]["spec"]["template"]
        for process in ALL
        if (deployment := _deployment(service, process)) in objects
    }
    return {
        name: digest
        for name, template in templates.items()
        if (digest := _annotations(template).get(SECRETS_ANNOTATION))
    }


def named_by_pods(objects: LiveObjects) -> frozenset[Reference]:
    """Return the settings and ServiceAccounts that pods of any revision name."""
    return frozenset(
        child
        for child, body in objects.items()
        if child.kind == "ServiceAccount" or (child.kind == "ConfigMap" and body.get("immutable"))
    )


def scaling(name: str, objects: LiveObjects) -> tuple[str, str, str] | None:
    """Return the status of the scaler of that name, if there is one."""
    for api_version, kind, condition_type in _SCALERS:
        if (scaler := objects.get(_reference(api_version, kind, name))) is not None:
            return _condition(scaler, condition_type)
    return None


def provider_of(name: str, objects: LiveObjects) -> str:
    """Return the provider of the metric that the autoscaler of that name reads, or nothing."""
    autoscaler = objects.get(_reference("autoscaling/v2", "HorizontalPodAutoscaler", name)) or {}
    annotations = autoscaler.get("metadata", {}).get("annotations") or {}
    return str(annotations.get(PROVIDER_ANNOTATION, ""))


def replicas(name: str, objects: LiveObjects) -> int | None:
    """Return the wanted number of pods of the Deployment of that name, if it exists."""
    deployment = objects.get(_reference("apps/v1", "Deployment", name))
    return None if deployment is None else int(deployment["spec"].get("replicas", 1))


def _condition(scaler: Manifest, condition_type: str) -> tuple[str, str, str]:
    for condition in (scaler.get("status") or {}).get("conditions") or []:
        if condition["type"] == condition_type:
            return condition["status"], condition.get("reason", ""), condition.get("message", "")
    return "Unknown", "NotLooked", "the autoscaler has not reported yet"


def _problem(process: Process, status: Manifest) -> str:
    """Return a text on why a Deployment makes no progress.

    It lists all reasons: a quota or an admission policy that refuses pods precedes a missed
    deadline.
    """
    problems = [
        f"{condition.get('reason')}: {condition.get('message')}"
        for condition in status.get("conditions") or []
        if (condition["type"], condition["status"]) in _HINDRANCES
    ]
    return f"{process.name}: {'; '.join(problems)}" if problems else ""


def _deployment(service: OrderService, process: Process) -> Reference:
    return _reference("apps/v1", "Deployment", name_of(service, process))


def _annotations(body: Manifest) -> dict[str, str]:
    annotations: dict[str, str] = body.get("metadata", {}).get("annotations") or {}
    return annotations


def _reference(api_version: str, kind: str, name: str) -> Reference:
    child_kind = kind_of(api_version, kind)
    return Reference(child_kind.api_version, child_kind.name, name)
