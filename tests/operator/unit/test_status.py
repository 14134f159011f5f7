"""The status that follows from live objects."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from orderservice_operator.children.context import Context
from orderservice_operator.children.desired import missing
from orderservice_operator.children.kinds import PROMETHEUS_RULE, SERVICE_MONITOR
from orderservice_operator.children.manifest import GENERATION_ANNOTATION, Reference
from orderservice_operator.children.processes import ALL, API
from orderservice_operator.children.scaling import Choice
from orderservice_operator.resource.decoding import Invalid
from orderservice_operator.resource.status import PodCounts, QueueDepth, Status
from orderservice_operator.state import conditions
from orderservice_operator.state.capacity import Connections, most_connections
from orderservice_operator.state.conditions import StatusInput
from orderservice_operator.state.live_objects import (
    Job,
    RolloutProgress,
    job,
    rollout,
    without_generated_name,
)
from orderservice_operator.state.topology_report import TopologyReport, remembered

NOW = "2026-01-02T03:04:05Z"
LATER = "2026-01-02T03:05:00Z"
READY = RolloutProgress(PodCounts(2, 2, 2), done=True, serving=True)
IN_PLACE = TopologyReport("True", "InPlace", "fine", {"order-processing": QueueDepth(7, 1)})


def _input(**fields: Any) -> StatusInput:
    members: dict[str, Any] = {
        "rollouts": {process.name: READY for process in ALL},
        "migration": Job(complete=True),
        "migrated": True,
        "report": IN_PLACE,
        "choice": Choice(None, "NotWanted", ""),
    }
    return StatusInput(**(members | fields))


def _verdicts(status: Any) -> dict[str, tuple[str, str]]:
    return {c.type: (c.status, c.reason) for c in status.conditions}


def test_everything_there_is_ready(make: Any) -> None:
    status = conditions.status(make(), _input(), NOW)
    assert status.phase == "Ready"
    assert status.image == status.migrated_image == "registry.example/orders:1.0.0"
    assert (status.api_pods, status.worker_replicas) == ("2/2", 2)
    assert status.processing == QueueDepth(7, 1)
    assert _verdicts(status) == {
        "Ready": ("True", "AllReady"),
        "Progressing": ("False", "Complete"),
        "Degraded": ("False", "AsExpected"),
        "Stalled": ("False", "AsExpected"),
        "MigrationsComplete": ("True", "Complete"),
        "TopologyReady": ("True", "InPlace"),
        "AutoscalingActive": ("False", "NotWanted"),
        "DatabaseCapacity": ("True", "Enough"),
    }


def test_a_condition_keeps_its_time_until_its_status_changes(make: Any) -> None:
    service = make()
    first = conditions.status(service, _input(), NOW)
    next_service = msgspec.structs.replace(service, status=first)
    assert conditions.status(next_service, _input(), LATER) == first
    changed = conditions.status(next_service, _input(migrated=False, migration=Job()), LATER)
    times = {c.type: c.last_transition_time for c in changed.conditions}
    assert times["MigrationsComplete"] == LATER
    assert times["Degraded"] == NOW


def test_a_failed_migration_degrades_and_keeps_the_old_image(make: Any) -> None:
    service = make()
    observation = _input(
        migrated=False,
        migration=Job(failed="BackoffLimitExceeded: x"),
        rollouts={process.name: RolloutProgress(PodCounts(2, 2, 0), done=False) for process in ALL},
    )
    status = conditions.status(service, observation, NOW)
    assert status.phase == "Degraded"
    assert (status.image, status.migrated_image) == ("", "")
    assert _verdicts(status)["MigrationsComplete"] == ("False", "Failed")
    assert _verdicts(status)["Progressing"] == ("False", "Stuck")


def test_a_running_migration_is_a_phase(make: Any) -> None:
    progress = {process.name: RolloutProgress(PodCounts(2, 0, 0), done=False) for process in ALL}
    status = conditions.status(make(), _input(migrated=False, rollouts=progress), NOW)
    assert status.phase == "Migrating"
    assert _verdicts(status)["Ready"][0] == "False"


def test_a_dead_broker_makes_nothing_unready_that_was_ready(make: Any) -> None:
    broker_down = _input(report=TopologyReport("False", "Unreachable", "x"))
    first = conditions.status(make(), broker_down, NOW)
    assert first.phase == "Progressing"
    assert _verdicts(first)["Ready"] == ("False", "TopologyNotReady")

    ready = msgspec.structs.replace(make(), status=conditions.status(make(), _input(), NOW))
    status = conditions.status(ready, broker_down, LATER)
    assert (status.phase, _verdicts(status)["Ready"]) == ("Ready", ("True", "AllReady"))
    assert _verdicts(status)["TopologyReady"] == ("False", "Unreachable")


@pytest.mark.parametrize("reason", ["Refused", "Mismatch", "VhostShared"])
def test_a_service_whose_queues_cannot_be_made_is_not_ready(make: Any, reason: str) -> None:
    ready = msgspec.structs.replace(make(), status=conditions.status(make(), _input(), NOW))
    status = conditions.status(ready, _input(report=TopologyReport("False", reason, "x")), LATER)
    assert _verdicts(status)["Ready"] == ("False", "TopologyNotReady")
    assert _verdicts(status)["Stalled"] == ("True", "Stuck")
    assert status.phase == "Degraded"


def test_pods_that_an_autoscaler_adds_make_nothing_unready(make: Any) -> None:
    adding = RolloutProgress(PodCounts(5, 2, 3), done=False, serving=True)
    summary = _input(rollouts=dict.fromkeys([process.name for process in ALL], adding))
    status = conditions.status(make(), summary, NOW)
    assert (status.phase, _verdicts(status)["Ready"]) == ("Ready", ("True", "AllReady"))
    assert _verdicts(status)["Progressing"] == ("True", "Scaling")


def test_what_pods_wait_for_is_told(make: Any) -> None:
    progress = {process.name: RolloutProgress(PodCounts(2, 0, 0), done=False) for process in ALL}
    hints = ("Secret orders does not exist",)
    status = conditions.status(make(), _input(rollouts=progress, hints=hints), NOW)
    messages = {condition.type: condition.message for condition in status.conditions}
    assert all(
        "Secret orders does not exist" in messages[kind] for kind in ("Ready", "Progressing")
    )


_NO_CLASS = 'pods "minimal-x-*" is forbidden: no PriorityClass with name gold was found'
_NO_ROOM = 'pods "minimal-x-*" is forbidden: exceeded quota: full, requested: pods=1'


def _refused(problems: dict[str, str], *hints: str) -> Any:
    rollouts = {
        process.name: RolloutProgress(
            PodCounts(2, 0, 0), done=False, problem=problems.get(process.name, "")
        )
        for process in ALL
    }
    return _input(rollouts=rollouts, hints=hints)


def test_what_refuses_pods_is_the_reason_and_is_named_first(make: Any) -> None:
    absent = _refused({"worker": f"worker: FailedCreate: {_NO_CLASS}", "api": _NO_CLASS})
    degraded = _degraded(conditions.status(make(), absent, NOW))
    assert degraded.reason == "PriorityClassMissing"
    text = "PriorityClass gold does not exist: no pods of api, worker"
    assert degraded.message.startswith(f"{text}; ")
    assert degraded.message.count(text) == 1
    assert [refusal.message for refusal in absent.refusals] == [text]

    full = _degraded(conditions.status(make(), _refused({"api": _NO_ROOM}), NOW))
    assert full.reason == "QuotaExceeded"
    assert full.message.startswith("ResourceQuota full is used up: no more pods of api; ")
    other = _degraded(conditions.status(make(), _refused({"api": "api: FailedCreate: no"}), NOW))
    assert other.reason == "Problems"


def test_a_migration_without_its_priority_class_degrades_and_one_without_room_waits(
    make: Any,
) -> None:
    absent = conditions.status(make(), _refused({}, f"migration: {_NO_CLASS}"), NOW)
    assert absent.phase == "Degraded"
    assert _verdicts(absent)["Degraded"] == ("True", "PriorityClassMissing")
    report = _refused({}, f"migration: {_NO_ROOM}")
    assert _verdicts(conditions.status(make(), report, NOW))["Degraded"][0] == "False"
    assert [refusal.reason for refusal in report.refusals] == ["QuotaExceeded"]


def test_a_resource_that_goes_or_cannot_be_read_keeps_what_is_known_of_it(make: Any) -> None:
    ready = msgspec.structs.replace(make(), status=conditions.status(make(), _input(), NOW))
    going = conditions.deleting(ready, LATER)
    assert (going.phase, _verdicts(going)["Ready"]) == ("Deleting", ("False", "Deleting"))
    bad = conditions.unreadable(Invalid(ready.metadata, "bad: $.spec", ready.status), LATER)
    assert (bad.phase, _verdicts(bad)["Ready"]) == ("Degraded", ("False", "InvalidSpec"))
    assert _verdicts(bad)["Stalled"] == ("True", "InvalidSpec")
    for status in (going, bad):
        assert (status.image, status.worker_replicas) == (ready.status.image, 2)
        assert _verdicts(status)["TopologyReady"] == ("True", "InPlace")


def test_after_a_restart_the_broker_is_what_it_was_until_it_is_looked_at(make: Any) -> None:
    service = make("prod")
    assert remembered(service).reason == "NotLooked"
    status = conditions.status(service, _input(), NOW)
    next_service = remembered(msgspec.structs.replace(service, status=status))
    assert (next_service.status, next_service.reason, next_service.message) == (
        "True",
        "InPlace",
        "fine",
    )


def test_a_mismatch_in_the_broker_degrades(make: Any) -> None:
    status = conditions.status(make(), _input(report=TopologyReport("False", "Mismatch", "q")), NOW)
    assert status.phase == "Degraded"


def test_a_child_that_cannot_be_written_degrades(make: Any) -> None:
    status = conditions.status(make(), _input(faults=("Service x: 403: no",)), NOW)
    assert (status.phase, _verdicts(status)["Ready"][0]) == ("Degraded", "False")


def _degraded(status: Any) -> Any:
    return next(condition for condition in status.conditions if condition.type == "Degraded")


def test_a_field_taken_back_is_shown_for_an_hour_or_until_the_spec_changes(make: Any) -> None:
    service = make()
    first = conditions.status(service, _input(conflicts=("Deployment x: 409: .spec.y",)), NOW)
    assert (first.phase, _verdicts(first)["Degraded"]) == ("Ready", ("False", "FieldTakenBack"))
    assert _degraded(first).message == f"{NOW} Deployment x: 409: .spec.y"

    next_service = msgspec.structs.replace(service, status=first)
    assert conditions.status(next_service, _input(), LATER) == first
    an_hour_later = conditions.status(next_service, _input(), "2026-01-02T04:05:00Z")
    assert _degraded(an_hour_later).reason == "AsExpected"
    metadata = msgspec.structs.replace(service.metadata, generation=2)
    changed = msgspec.structs.replace(next_service, metadata=metadata)
    assert _degraded(conditions.status(changed, _input(), LATER)).reason == "AsExpected"


def test_a_fight_for_a_field_does_not_change_the_status_each_time(make: Any) -> None:
    service, conflicts = make(), ("b: .spec", "a: .spec")
    first = conditions.status(service, _input(conflicts=conflicts), NOW)
    next_service = msgspec.structs.replace(service, status=first)
    assert conditions.status(next_service, _input(conflicts=conflicts[::-1]), LATER) == first
    other = conditions.status(next_service, _input(conflicts=("c: .spec",)), LATER)
    assert _degraded(other).message == f"{LATER} c: .spec"


def test_observing_says_what_it_would_write(make: Any) -> None:
    status = conditions.status(make(mode="Observe"), _input(pending="Service x"), NOW)
    progressing = next(c for c in status.conditions if c.type == "Progressing")
    assert (progressing.reason, progressing.message) == ("Observing", "would write: Service x")


def test_paused_is_a_phase(make: Any) -> None:
    assert conditions.status(make(paused=True), _input(), NOW).phase == "Paused"


def test_pools_that_exceed_the_server_are_told(make: Any) -> None:
    service = make(database={"maxConnections": 10})
    condition = conditions.status(service, _input(), NOW).conditions[-1]
    assert (condition.status, condition.reason) == ("False", "PoolsExceedServer")
    assert "77 connections to the primary" in condition.message


def test_connections_count_every_process_of_every_pod(make: Any) -> None:
    # api: 4 forks × 2 and a probe; worker: prefetch 10, a probe and housekeeping's; relay: session
    # and leadership; notifier: its pool; each with a pod more in a roll-out. And the migration's 2.
    assert most_connections(make()).primary == 3 * 9 + 3 * 12 + 3 * 2 + 3 * 2 + 2
    scaled = make(api={"autoscaling": {"minReplicas": 1, "maxReplicas": 5}})
    assert most_connections(scaled).primary == 77 + (7 - 3) * 9
    replica = {"replicaSecretRef": {"name": "orders-database", "key": "replicaUrl"}}
    # A fork measures the replica's lag over a connection to each server.
    assert most_connections(make(database=replica)) == Connections(77 + 3 * 4, 3 * 4 * 3)


def test_the_values_for_production_fit_into_their_servers(make: Any) -> None:
    chart = Path(__file__).parents[3] / "charts" / "orderservice-environment"
    spec = yaml.safe_load((chart / "values-prod.yaml").read_text())["spec"]
    maximum, limit = most_connections(make(**spec)), spec["database"]["maxConnections"]
    assert max(maximum.primary, maximum.replica) <= limit


def _deployment(**fields: Any) -> Any:
    status = {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2}
    status |= {"readyReplicas": 2, "availableReplicas": 2}
    annotations = {"orders.platform.dev/revision": "r-1"}
    return {
        "metadata": {"generation": 2, "annotations": annotations},
        "spec": {"replicas": 2},
        "status": status | fields,
    }


def test_an_autoscaler_may_be_adding_pods(make: Any) -> None:
    reference = Reference("apps/v1", "Deployment", "minimal-api")
    growing = _deployment(replicas=3, updatedReplicas=3) | {"spec": {"replicas": 5}}
    scaled = make(api={"autoscaling": {"minReplicas": 2, "maxReplicas": 6}})
    state = rollout(scaled, API, {reference: growing}, "r-1")
    assert (state.done, state.serving) == (False, True)
    assert not rollout(make(), API, {reference: growing}, "r-1").serving
    older = _deployment(replicas=3, updatedReplicas=2) | {"spec": {"replicas": 5}}
    assert not rollout(scaled, API, {reference: older}, "r-1").serving


def test_a_pod_that_is_refused_again_under_another_name_is_no_news() -> None:
    first, second = (
        f'Error creating: pods "a-migrate-ed97-{end}" is forbidden: exceeded quota: q'
        for end in ("x7k2p", "9bfqz")
    )
    expected = 'Error creating: pods "a-migrate-ed97-*" is forbidden: exceeded quota: q'
    assert without_generated_name(first) == without_generated_name(second) == expected


def test_a_quota_that_refuses_pods_hides_no_missed_deadline(make: Any) -> None:
    quota_error = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": "exceeded quota",
    }
    late_condition = {
        "type": "Progressing",
        "status": "False",
        "reason": "ProgressDeadlineExceeded",
        "message": "too late",
    }
    live = {
        Reference("apps/v1", "Deployment", "minimal-api"): _deployment(
            availableReplicas=1, conditions=[quota_error, late_condition]
        )
    }
    state = rollout(make(), API, live, "r-1")
    assert state.late
    assert "exceeded quota" in state.problem


@pytest.mark.parametrize(
    ("fields", "is_done"),
    [
        ({}, True),
        ({"observedGeneration": 1}, False),
        ({"updatedReplicas": 1}, False),
        ({"readyReplicas": 1, "availableReplicas": 1}, False),
        ({"availableReplicas": 1}, False),
        ({"replicas": 3}, False),
    ],
)
def test_when_a_roll_out_is_done(make: Any, fields: Any, is_done: object) -> None:
    live = {Reference("apps/v1", "Deployment", "minimal-api"): _deployment(**fields)}
    assert rollout(make(), API, live, "r-1").done is is_done
    assert not rollout(make(), API, live, "r-2").done


def test_a_roll_out_past_its_deadline_is_a_problem(make: Any) -> None:
    stuck = {
        "type": "Progressing",
        "status": "False",
        "reason": "ProgressDeadlineExceeded",
        "message": "too late",
    }
    live = {
        Reference("apps/v1", "Deployment", "minimal-api"): _deployment(
            availableReplicas=1, conditions=[stuck]
        )
    }
    state = rollout(make(), API, live, "r-1")
    assert (state.problem, state.late) == ("api: ProgressDeadlineExceeded: too late", True)
    assert not rollout(make(), API, live, "r-2").late


def test_a_job_says_how_it_ended() -> None:
    def ended(kind: str) -> Any:
        condition = {"type": kind, "status": "True", "reason": "R", "message": "m"}
        return {Reference("batch/v1", "Job", "j"): {"status": {"conditions": [condition]}}}

    assert job("j", ended("Complete")).complete
    assert job("j", ended("Failed")).failed == "R: m"
    assert job("j", {}) == Job()


@pytest.mark.parametrize("text", ["", "x", "7.5", "-1", "²", "9" * 5000, "7\n"])
def test_a_generation_that_somebody_wrote_on_a_job_is_none(text: str) -> None:
    annotated = {"metadata": {"annotations": {GENERATION_ANNOTATION: text}}}
    assert job("j", {Reference("batch/v1", "Job", "j"): annotated}).generation == 0


def test_a_monitor_that_is_wanted_where_its_kind_is_not_known_is_told(make: Any) -> None:
    def messages(*kinds: str) -> tuple[str, ...]:
        return missing(make("full"), Context(frozenset(kinds)))

    assert len(messages()) == 2
    assert "serviceMonitor is Enabled" in messages(PROMETHEUS_RULE)[0]
    assert messages(PROMETHEUS_RULE, SERVICE_MONITOR) == ()
    assert missing(make(), Context()) == ()
    status = conditions.status(make(), _input(missing=messages()), NOW)
    assert status.phase == "Degraded"


@pytest.mark.parametrize("reason", ["PolicyShadowed", "VhostShared"])
def test_what_only_people_can_mend_in_a_broker_degrades(make: Any, reason: str) -> None:
    status = conditions.status(make(), _input(report=TopologyReport("False", reason, "x")), NOW)
    assert status.phase == "Degraded"


def test_the_reason_of_a_pause_is_shown(make: Any) -> None:
    service = make(paused=True)
    because = {"orders.platform.dev/paused-because": "INC-42"}
    metadata = msgspec.structs.replace(service.metadata, annotations=because)
    paused = msgspec.structs.replace(service, metadata=metadata)
    ready = next(
        c for c in conditions.status(paused, _input(), NOW).conditions if c.type == "Ready"
    )
    assert ready.message.endswith(": INC-42")


@pytest.mark.parametrize(
    ("upgrade", "serving", "progressing"),
    [
        ("Waiting", True, ("True", "UpgradeWaits")),
        ("UnderWay", False, ("True", "UpgradingPods")),
        (None, True, ("False", "Complete")),
    ],
)
def test_an_upgrade_of_the_operator_is_told(
    make: Any, upgrade: Any, progressing: tuple[str, str], *, serving: bool
) -> None:
    rollout_ = RolloutProgress(PodCounts(2, 2, 2), done=serving, serving=serving)
    rollouts = {process.name: rollout_ for process in ALL}
    status = conditions.status(make(), _input(rollouts=rollouts, upgrade=upgrade), NOW)
    assert status.upgrade == upgrade
    assert _verdicts(status)["Progressing"] == progressing
    assert _verdicts(status)["Ready"][0] == str(serving)


def test_another_installation_that_gives_way_is_told(make: Any) -> None:
    recorded = Status(operator="a/ours", contender="b/theirs")
    service = msgspec.structs.replace(make(), status=recorded)
    status = conditions.status(service, _input(), NOW)
    assert (status.operator, status.contender) == ("a/ours", "b/theirs")
    assert _verdicts(status)["OperatorConflict"] == ("True", "TwoInstallations")
    assert _verdicts(status)["Ready"][0] == "True"
