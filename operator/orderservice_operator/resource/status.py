"""The status of the resource."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

ConditionStatus = Literal["True", "False", "Unknown"]
Phase = Literal[
    "Pending",
    "Migrating",
    "Progressing",
    "Ready",
    "Degraded",
    "RolledBack",
    "Paused",
    "Deleting",
]

Upgrade = Literal["Waiting", "UnderWay", "UnderWayUnready"]


class Condition(msgspec.Struct, frozen=True, rename="camel"):
    """One aspect of the service, in the shape Kubernetes uses everywhere."""

    type: Annotated[str, Meta(max_length=316, description="Type of the condition.")]
    status: Annotated[ConditionStatus, Meta(description="True, False or Unknown.")]
    reason: Annotated[str, Meta(max_length=1024, description="Reason for programs.")]
    message: Annotated[str, Meta(max_length=32768, description="Explanation for people.")] = ""
    observed_generation: Annotated[
        int, Meta(description="Generation of the spec that it describes.")
    ] = 0
    last_transition_time: Annotated[
        str,
        Meta(
            description="Time of the last change of `status`.",
            extra_json_schema={"format": "date-time"},
        ),
    ] = ""


class PodCounts(msgspec.Struct, frozen=True, rename="camel"):
    """Pods of one process."""

    desired: Annotated[int, Meta(description="Pods that should exist.")] = 0
    ready: Annotated[int, Meta(description="Pods that are ready.")] = 0
    updated: Annotated[int, Meta(description="Pods that run the wanted version.")] = 0


class QueueDepth(msgspec.Struct, frozen=True, rename="camel"):
    """Messages in a queue, as last measured."""

    messages: Annotated[
        int, Meta(description="All messages, including those that are being handled.")
    ] = 0
    dead: Annotated[int, Meta(description="Messages in its dead-letter queue.")] = 0


class Rollback(msgspec.Struct, frozen=True, rename="camel"):
    """The revision that runs instead of the spec, until the spec changes."""

    generation: Annotated[int, Meta(description="Generation of the spec that does not run.")]
    image: Annotated[str, Meta(description="Image that does not run.")]
    revision: Annotated[str, Meta(description="ControllerRevision that runs instead.")]
    revision_image: Annotated[str, Meta(description="Image of that revision.")]
    reason: Annotated[
        Literal["DeadlineMissed", "MigrationFailed", "Requested"], Meta(description="Reason.")
    ]
    message: Annotated[str, Meta(max_length=4096, description="Explanation for people.")] = ""
    attempt: Annotated[
        str,
        Meta(
            description="Digest of the spec that does not run. Pausing and scaling do not "
            "change it."
        ),
    ] = ""


class Status(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The state of an order service, as the operator observed it."""

    observed_generation: Annotated[
        int, Meta(description="Generation of the spec that the status describes.")
    ] = 0
    phase: Annotated[Phase, Meta(description="Summary in one word.")] = "Pending"
    conditions: Annotated[
        tuple[Condition, ...],
        Meta(
            description="Ready, Progressing, Degraded, Stalled, MigrationsComplete, TopologyReady, "
            "AutoscalingActive, DatabaseCapacity; OperatorConflict where there is one.",
            extra_json_schema={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
        ),
    ] = ()
    image: Annotated[str, Meta(description="Image that all pods run, once rolled out.")] = ""
    revision: Annotated[
        str, Meta(description="ControllerRevision that all pods run, once rolled out.")
    ] = ""
    revision_generation: Annotated[
        int, Meta(description="Generation of the spec that it was rolled out for.")
    ] = 0
    upgrade: Annotated[
        Upgrade | None,
        Meta(
            description="Set while a newer operator replaces the pods of a spec that nobody "
            "changed; Waiting: those of other resources come first; UnderWayUnready: it was not "
            "ready before, and holds up others no longer than its deadline."
        ),
    ] = None
    rollback: Annotated[
        Rollback | None, Meta(description="Set while another revision runs instead of the spec.")
    ] = None
    migrated_image: Annotated[str, Meta(description="Image whose migrations are complete.")] = ""
    migration: Annotated[str, Meta(description="Job of the migrations that are complete.")] = ""
    operator_version: Annotated[
        str, Meta(description="Version of the operator that wrote the status.")
    ] = ""
    operator: Annotated[
        str,
        Meta(description="Installation that manages this resource: `namespace/name` of its Lease."),
    ] = ""
    contender: Annotated[
        str,
        Meta(description="Another installation that has this resource in its scope and yields."),
    ] = ""
    api: Annotated[PodCounts, Meta(description="Pods of the api.")] = PodCounts()
    worker: Annotated[PodCounts, Meta(description="Pods of the worker.")] = PodCounts()
    relay: Annotated[PodCounts, Meta(description="Pods of the relay.")] = PodCounts()
    notifier: Annotated[PodCounts, Meta(description="Pods of the notifier.")] = PodCounts()
    api_pods: Annotated[str, Meta(description="Pods of the api, ready/desired.")] = ""
    worker_pods: Annotated[str, Meta(description="Pods of the worker, ready/desired.")] = ""
    worker_replicas: Annotated[int, Meta(description="For the scale subresource.")] = 0
    worker_selector: Annotated[str, Meta(description="For the scale subresource.")] = ""
    processing: Annotated[QueueDepth | None, Meta(description="Queue order-processing.")] = None
    notifications: Annotated[QueueDepth | None, Meta(description="Queue order-notifications.")] = (
        None
    )
