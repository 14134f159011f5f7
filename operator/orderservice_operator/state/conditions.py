"""The conditions and the whole status of a resource, from a snapshot. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final

import msgspec

from orderservice_operator.children.manifest import selector
from orderservice_operator.children.migration_job import job_name
from orderservice_operator.children.processes import API, NOTIFIER, RELAY, WORKER
from orderservice_operator.children.scaling import Choice
from orderservice_operator.resource.annotations import PAUSE_ANNOTATION
from orderservice_operator.resource.decoding import Invalid
from orderservice_operator.resource.spec import OrderService
from orderservice_operator.resource.status import (
    Condition,
    ConditionStatus,
    Phase,
    Rollback,
    Status,
    Upgrade,
)
from orderservice_operator.state.capacity import most_connections
from orderservice_operator.state.live_objects import Job, RolloutProgress
from orderservice_operator.state.refusals import PRIORITY_CLASS_MISSING, PodRefusal, refusals
from orderservice_operator.state.topology_report import PROBLEMS, TopologyReport
from orderservice_topology.topology import NOTIFICATIONS, PROCESSING

OPERATOR_VERSION: Final = "0.1.0"
ROLLED_BACK: Final = "RolledBack"
TAKEN_BACK: Final = "FieldTakenBack"
_TAKEN_BACK_FOR: Final = timedelta(hours=1)  # a guess: long enough for people to see it
_TAKEN_BACK_LENGTH: Final = 4096
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"

Verdict = tuple[ConditionStatus, str, str]


class StatusInput(msgspec.Struct, frozen=True, dict=True):
    """The inputs of the status.

    `faults` are children that could not be written, and `missing` are wanted kinds that this
    cluster does not have. `pending` is what Observe mode would write. `autoscalers` are the
    statuses of the HorizontalPodAutoscalers, by process. `rollback` is why something other than the
    spec runs, `no_way_back` why that is impossible, `revision` what runs. `conflicts` are our
    fields that others have written. `hints` are what pods may be waiting for, such as a missing
    Secret. `refused` are Deployments that the API server rejects; they are among the faults.
    `upgrade` is how far a newer operator has replaced the pods.
    """

    rollouts: Mapping[str, RolloutProgress]
    migration: Job
    migrated: bool
    report: TopologyReport
    choice: Choice
    autoscalers: Mapping[str, tuple[str, str, str]] = {}
    faults: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    pending: str = ""
    rollback: Rollback | None = None
    no_way_back: str = ""
    revision: str = ""
    hints: tuple[str, ...] = ()
    upgrade: Upgrade | None = None

    @cached_property
    def refusals(self) -> tuple[PodRefusal, ...]:
        """Why pods are refused; hints contain the reasons for the migration's pods."""
        problems = {name: rollout.problem for name, rollout in self.rollouts.items()}
        return refusals(problems | {"migration": "; ".join(self.hints)})

    @property
    def problems(self) -> tuple[str, ...]:
        """Problems that a person must solve."""
        problems = [rollout.problem for rollout in self.rollouts.values() if rollout.problem]
        if self.migration.failed and self.rollback is None:
            problems.append(f"migration: {self.migration.failed}")
        if self.report.reason in PROBLEMS:
            problems.append(f"RabbitMQ: {self.report.message}")
        # A quota may have room again; only a person creates a PriorityClass.
        messages = [
            refusal.message for refusal in self.refusals if refusal.reason == PRIORITY_CLASS_MISSING
        ]
        return (*messages, *self.faults, *self.missing, *problems)

    @property
    def done(self) -> bool:
        """Whether every process runs the wanted version with all its pods."""
        return self.migrated and all(rollout.done for rollout in self.rollouts.values())

    @property
    def serving(self) -> bool:
        """Whether every process runs the wanted version with enough pods."""
        return self.migrated and all(rollout.serving for rollout in self.rollouts.values())

    @property
    def stuck(self) -> str:
        """Why the roll-out cannot end without a person, as a text."""
        problems = [rollout.problem for rollout in self.rollouts.values() if rollout.late]
        migration = [f"migration: {self.migration.failed}"] if self.migration.failed else []
        topology = [self.report.message] if self.report.reason in PROBLEMS else []
        return "; ".join([*self.refused, *problems, *migration, *topology])


def status(service: OrderService, summary: StatusInput, now: str) -> Status:
    """Return the status; a condition keeps its time as long as its status is the same."""
    old = service.status
    counts = {name: rollout.count for name, rollout in summary.rollouts.items()}
    verdicts = dict(_conditions(service, summary, now))
    workers = counts[WORKER.name]
    return Status(
        observed_generation=service.metadata.generation,
        phase=_phase(service, summary),
        conditions=tuple(stamped(service, verdicts, now)),
        image=service.spec.image if summary.done else old.image,
        revision=summary.revision if summary.done else old.revision,
        revision_generation=(
            service.metadata.generation if summary.done else old.revision_generation
        ),
        upgrade=summary.upgrade,
        rollback=summary.rollback,
        **_migrated(service, summary),
        operator_version=OPERATOR_VERSION,
        operator=old.operator,
        contender=old.contender,
        api=counts[API.name],
        worker=workers,
        relay=counts[RELAY.name],
        notifier=counts[NOTIFIER.name],
        api_pods=f"{counts[API.name].ready}/{counts[API.name].desired}",
        worker_pods=f"{workers.ready}/{workers.desired}",
        worker_replicas=workers.desired,
        worker_selector=",".join(f"{k}={v}" for k, v in selector(service, WORKER.name).items()),
        processing=summary.report.queues.get(PROCESSING, old.processing),
        notifications=summary.report.queues.get(NOTIFICATIONS, old.notifications),
    )


def _migrated(service: OrderService, summary: StatusInput) -> dict[str, str]:
    """Return the previous condition while an earlier revision runs: migrations are not undone."""
    if summary.migrated and summary.rollback is None:
        return {"migrated_image": service.spec.image, "migration": job_name(service)}
    old = service.status
    return {"migrated_image": old.migrated_image, "migration": old.migration}


def deleting(service: OrderService | Invalid, now: str) -> Status:
    """Return the status of a resource that is being deleted and waits for its finalizers."""
    verdicts: dict[str, Verdict] = {"Ready": ("False", "Deleting", "the resource is being deleted")}
    return _amended(service, "Deleting", verdicts, now)


def unreadable(invalid: Invalid, now: str) -> Status:
    """Return the status of an unreadable resource; the rest of the status stays."""
    verdicts: dict[str, Verdict] = {
        "Ready": ("False", "InvalidSpec", invalid.problem),
        "Stalled": ("True", "InvalidSpec", invalid.problem),
    }
    status = _amended(invalid, "Degraded", verdicts, now)
    # Otherwise programs would keep waiting for this generation to be reconciled.
    return msgspec.structs.replace(status, observed_generation=invalid.metadata.generation)


def _amended(
    service: OrderService | Invalid, phase: Phase, verdicts: Mapping[str, Verdict], now: str
) -> Status:
    conditions = (old for old in service.status.conditions if old.type not in verdicts)
    return msgspec.structs.replace(
        service.status, phase=phase, conditions=(*stamped(service, verdicts, now), *conditions)
    )


def stamped(
    service: OrderService | Invalid, verdicts: Mapping[str, Verdict], now: str
) -> Iterator[Condition]:
    """Add generation and time to verdicts, which makes them conditions."""
    conditions = {condition.type: condition for condition in service.status.conditions}
    for name, (value, reason, message) in verdicts.items():
        old = conditions.get(name)
        unchanged = old is not None and old.status == value
        yield Condition(
            type=name,
            status=value,
            reason=reason,
            message=message,
            observed_generation=service.metadata.generation,
            last_transition_time=old.last_transition_time if old and unchanged else now,
        )


def rolled_back(rollback: Rollback) -> str:
    """Return a message for people."""
    return (
        f"generation {rollback.generation} does not run ({rollback.message}): "
        f"{_instead(rollback)}, until the spec changes"
    )


def _instead(rollback: Rollback) -> str:
    return (
        f"pods run {rollback.revision_image} of revision {rollback.revision} "
        f"instead of {rollback.image}"
    )


def _conditions(
    service: OrderService, summary: StatusInput, now: str
) -> Iterator[tuple[str, Verdict]]:
    yield "Ready", _ready(service, summary)
    yield "Progressing", _progressing(service, summary)
    yield "Degraded", _degraded(service, summary, now)
    yield "Stalled", _stalled(summary)
    yield "MigrationsComplete", _migrations(service, summary)
    yield "TopologyReady", (summary.report.status, summary.report.reason, summary.report.message)
    yield "AutoscalingActive", _autoscaling(service, summary)
    yield "DatabaseCapacity", _capacity(service)
    if service.status.contender:
        yield "OperatorConflict", ("True", "TwoInstallations", contended(service))


def contended(service: OrderService | Invalid) -> str:
    """Return a text that names the two installations with this resource in their scope."""
    status = service.status
    return (
        f"operator {status.operator or 'without a Lease'} manages this resource and "
        f"{status.contender} leaves it alone: "
        "give them different namespaces (watchNamespaces), or uninstall one"
    )


def _ready(service: OrderService, summary: StatusInput) -> Verdict:
    if service.spec.paused:
        reason = service.metadata.annotations.get(PAUSE_ANNOTATION, "")
        text = "nothing is written until spec.paused is unset" + (f": {reason}" if reason else "")
        return "Unknown", "Paused", text
    if summary.rollback:
        return "False", ROLLED_BACK, _instead(summary.rollback)
    if not (summary.serving and not summary.faults):
        names = [name for name, rollout in summary.rollouts.items() if not rollout.serving]
        text = "not all ready: " + ", ".join(names or ["children"])
        return "False", "NotAllReady", "; ".join([text, *summary.hints])
    if _lacks_topology(service, summary.report):
        return "False", "TopologyNotReady", f"RabbitMQ: {summary.report.message}"
    return "True", "AllReady", f"all pods run {service.spec.image}"


def _lacks_topology(service: OrderService, report: TopologyReport) -> bool:
    """Return whether RabbitMQ lacks a part of the topology.

    If the management API does not answer, a service that was ready stays ready.
    """
    if report.status != "False":
        return False
    if report.reason in PROBLEMS:
        return True
    was_ready = ("Ready", "True") in {(old.type, old.status) for old in service.status.conditions}
    return report.reason == "Unreachable" and not was_ready


def _stalled(summary: StatusInput) -> Verdict:
    """Tell programs (kstatus: Flux, Argo CD, Helm) that waiting does not help."""
    if summary.rollback:
        return "True", ROLLED_BACK, _instead(summary.rollback)
    if stuck := summary.stuck:
        return "True", "Stuck", stuck
    return "False", "AsExpected", ""


def _progressing(service: OrderService, summary: StatusInput) -> Verdict:
    if service.spec.mode == "Observe" and summary.pending:
        return "False", "Observing", f"would write: {summary.pending}"
    if summary.rollback:
        text = rolled_back(summary.rollback)
        if problems := [rollout.problem for rollout in summary.rollouts.values() if rollout.late]:
            return "False", "Stuck", "; ".join([text, "and these are not ready either", *problems])
        return ("False" if summary.done else "True"), ROLLED_BACK, text
    if summary.problems:
        return "False", "Stuck", "; ".join(filter(None, (summary.problems[0], summary.no_way_back)))
    return _under_way(summary)


def _under_way(summary: StatusInput) -> Verdict:
    if summary.upgrade == "Waiting":
        return "True", "UpgradeWaits", "pods are replaced after those of other resources"
    if not summary.migrated:
        text = "the roll-out waits for the migration"
        return "True", "Migrating", "; ".join([text, *summary.hints])
    if summary.upgrade and not summary.serving:
        return "True", "UpgradingPods", "this version of the operator creates different pods"
    if not summary.serving:
        return "True", "RollingOut", "; ".join(["pods are being replaced", *summary.hints])
    if not summary.done:
        return "True", "Scaling", "an autoscaler changes the number of pods"
    return "False", "Complete", "nothing to do"


def _degraded(service: OrderService, summary: StatusInput, now: str) -> Verdict:
    if summary.rollback:
        texts = (rolled_back(summary.rollback), *summary.problems)
        return "True", ROLLED_BACK, "; ".join(texts)
    if summary.refused:
        return "True", "PodTemplateRefused", "; ".join(summary.problems)
    if problems := summary.problems:
        reason = next((refusal.reason for refusal in summary.refusals), "Problems")
        messages = [refusal.message for refusal in summary.refusals]
        return "True", reason, "; ".join(dict.fromkeys([*messages, *problems]))
    if overwrites := _taken_back(service, summary.conflicts, now):
        return "False", TAKEN_BACK, overwrites
    return "False", "AsExpected", ""


def _taken_back(service: OrderService, conflicts: tuple[str, ...], now: str) -> str:
    """Name the other writers of our fields, and since when; for an hour, or until the spec changes.

    A repetition within the hour changes nothing: otherwise a program that writes all the time would
    cause as many writes of the status.
    """
    earliest = (datetime.fromisoformat(now) - _TAKEN_BACK_FOR).strftime(_TIME)
    message = next(
        (
            condition.message
            for condition in service.status.conditions
            if (condition.type, condition.reason) == ("Degraded", TAKEN_BACK)
            and condition.observed_generation == service.metadata.generation
            and condition.message > earliest  # it starts with a time
        ),
        "",
    )
    text = "; ".join(sorted(conflicts))[:_TAKEN_BACK_LENGTH]
    return message if not text or message.partition(" ")[2] == text else f"{now} {text}"


def _migrations(service: OrderService, summary: StatusInput) -> Verdict:
    if not service.spec.migrations.enabled:
        return "Unknown", "NotWanted", "spec.migrations.enabled is false"
    if summary.rollback and summary.rollback.reason == "MigrationFailed":
        return "False", "Failed", summary.rollback.message
    if summary.migrated:
        return "True", "Complete", f"the schema fits {service.spec.image}"
    if summary.migration.failed:
        hint = "; delete the Job to try again"
        return "False", "Failed", summary.migration.failed + hint
    return "False", "Running", "the migration Job has not ended"


def _autoscaling(service: OrderService, summary: StatusInput) -> Verdict:
    autoscaling = (service.spec.api.autoscaling, service.spec.worker.autoscaling)
    if not any(autoscaling):
        return "False", "NotWanted", "no process is autoscaled"
    if service.spec.worker.autoscaling and summary.choice.provider is None:
        text = f"worker: {summary.choice.message}; the number of pods stays"
        return "False", summary.choice.reason, text
    for process, (value, reason, message) in summary.autoscalers.items():
        if value != "True":
            return "False", reason, f"{process}: {message} ({summary.choice.message})"
    return "True", summary.choice.provider or "CPU", f"worker: {summary.choice.message}"


def _capacity(service: OrderService) -> Verdict:
    demand, limit = most_connections(service), service.spec.database.max_connections
    text = f"{demand.primary} connections to the primary"
    if service.spec.database.replica_secret_ref:
        text += f" and {demand.replica} to the replica"
    if max(demand.primary, demand.replica) > limit:
        text = f"all pods together, with those of a roll-out, can take {text}"
        return "False", "PoolsExceedServer", f"{text}; database.maxConnections is {limit}"
    return "True", "Enough", f"at most {text}, of {limit}"


def _phase(service: OrderService, summary: StatusInput) -> Phase:
    phases: Iterable[tuple[bool, Phase]] = (
        (service.metadata.deletion_timestamp is not None, "Deleting"),
        (service.spec.paused, "Paused"),
        (summary.rollback is not None, ROLLED_BACK),
        (bool(summary.problems), "Degraded"),
        (summary.serving and not _lacks_topology(service, summary.report), "Ready"),
        (not summary.migrated, "Migrating"),
    )
    return next((phase for applies, phase in phases if applies), "Progressing")
