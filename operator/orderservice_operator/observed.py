"""What live objects say about themselves, read into types."""

import msgspec

from orderservice_operator.children.processes import Process, name_of
from orderservice_operator.cluster.kinds import kind_of
from orderservice_operator.manifest import Manifest, Reference
from orderservice_operator.plan import Live
from orderservice_operator.resource.spec import OrderService
from orderservice_operator.resource.status import Count


class Rollout(msgspec.Struct, frozen=True):
    """How far a Deployment is; `problem` is what keeps it from getting further, for people."""

    count: Count
    done: bool
    problem: str = ""


class Job(msgspec.Struct, frozen=True):
    """How far a Job is."""

    complete: bool = False
    failed: str = ""


def rollout(service: OrderService, process: Process, live: Live) -> Rollout:
    """Return how far the Deployment of a process is."""
    place = _reference("apps/v1", "Deployment", name_of(service, process))
    found = live.get(place)
    if found is None:
        return Rollout(Count(), done=False)
    spec, status = found["spec"], found.get("status") or {}
    count = Count(
        desired=spec.get("replicas", 1),
        ready=status.get("readyReplicas", 0),
        updated=status.get("updatedReplicas", 0),
    )
    seen = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
    whole = count.desired == count.updated == count.ready == status.get("replicas", 0)
    done = seen and whole and not spec.get("paused", False)
    return Rollout(count, done, "" if done else _problem(process, status))


def job(name: str, live: Live) -> Job:
    """Return how far a Job is."""
    found = live.get(_reference("batch/v1", "Job", name))
    status = (found or {}).get("status") or {}
    for condition in status.get("conditions") or []:
        if condition["status"] == "True" and condition["type"] == "Complete":
            return Job(complete=True)
        if condition["status"] == "True" and condition["type"] == "Failed":
            return Job(failed=f"{condition.get('reason')}: {condition.get('message')}")
    return Job()


def scaling(name: str, live: Live) -> tuple[str, str, str] | None:
    """Return what the autoscaler of that name says about itself, if there is one."""
    found = live.get(_reference("autoscaling/v2", "HorizontalPodAutoscaler", name))
    if found is None:
        return None
    conditions = (found.get("status") or {}).get("conditions") or []
    for condition in conditions:
        if condition["type"] == "ScalingActive":
            return condition["status"], condition.get("reason", ""), condition.get("message", "")
    return "Unknown", "NotLooked", "the autoscaler has not looked yet"


def _problem(process: Process, status: Manifest) -> str:
    for condition in status.get("conditions") or []:
        stuck = condition["type"] == "Progressing" and condition["status"] == "False"
        failing = condition["type"] == "ReplicaFailure" and condition["status"] == "True"
        if stuck or failing:
            return f"{process.name}: {condition.get('reason')}: {condition.get('message')}"
    return ""


def _reference(api_version: str, kind: str, name: str) -> Reference:
    known = kind_of(api_version, kind)
    return Reference(known.api_version, known.name, name)
