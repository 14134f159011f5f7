"""Which revisions are kept, and when a service is rolled back."""

from itertools import permutations
from typing import Any

import msgspec
import pytest

from orderservice_operator.children import processes
from orderservice_operator.children.controller_revision import (
    controller_revision,
    revision_name,
    with_spec_of,
)
from orderservice_operator.children.manifest import Manifest, Reference, reference
from orderservice_operator.children.pods import pod_template
from orderservice_operator.resource.annotations import ROLLBACK_ANNOTATION
from orderservice_operator.resource.spec import OrderService
from orderservice_operator.resource.status import Rollback, Status
from orderservice_operator.state import revisions, rollback
from orderservice_operator.state.plan import with_signature
from orderservice_operator.state.planning import decide_rollback, plan
from orderservice_operator.state.snapshot import Snapshot, take_snapshot

EXAMPLES = ("minimal", "full", "staging", "prod")
V1, V2, V3 = (f"registry.example/orders:{number}.0.0" for number in (1, 2, 3))
LATE = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}


def _named(service: OrderService, name: str) -> OrderService:
    metadata = msgspec.structs.replace(service.metadata, name=name)
    return msgspec.structs.replace(service, metadata=metadata)


def _pods(service: OrderService) -> list[Manifest]:
    return [pod_template(service, process) for process in processes.ALL]


def _roundtrip(manifest: Manifest) -> Any:
    return msgspec.json.decode(msgspec.json.encode(manifest))


def _at(service: OrderService, generation: int, **fields: Any) -> OrderService:
    metadata = msgspec.structs.replace(service.metadata, generation=generation)
    return msgspec.structs.replace(service, metadata=metadata, **fields)


def _asking(service: OrderService, text: str) -> OrderService:
    annotations = {ROLLBACK_ANNOTATION: text}
    metadata = msgspec.structs.replace(service.metadata, annotations=annotations)
    return msgspec.structs.replace(service, metadata=metadata)


class Cluster:
    """The live objects, as controllers leave them."""

    def __init__(self) -> None:
        self.live: dict[Reference, Manifest] = {}

    def snapshot(self, service: OrderService) -> Snapshot:
        return take_snapshot(service, self.live, frozenset(), {})

    def write(self, service: OrderService) -> list[Reference]:
        changes = plan(self.snapshot(service))
        for entry in changes.writes:
            old = self.live.get(entry.reference, {})
            generation = old.get("metadata", {}).get("generation", 0) + 1
            metadata = entry.manifest["metadata"] | {"generation": generation}
            status = {"status": old["status"]} if "status" in old else {}
            self.live[entry.reference] = _roundtrip(
                entry.manifest | status | {"metadata": metadata}
            )
        for deleted in changes.deletions:
            del self.live[deleted]
        return [write.reference for write in changes.writes]

    def roll_out(self, *, late: str = "") -> None:
        """Set the Deployments' status to rolled out; one component is too late."""
        for child, manifest in self.live.items():
            if child.kind != "Deployment" or manifest["spec"].get("paused"):
                continue
            replicas = manifest["spec"].get("replicas", 1)
            fails = late and child.name.endswith(f"-{late}")
            manifest["status"] = {
                "observedGeneration": manifest["metadata"]["generation"],
                "replicas": replicas + bool(fails),
                "updatedReplicas": 1 if fails else replicas,
                "availableReplicas": replicas,
                "conditions": [LATE] if fails else [],
            }

    def end_job(self, how: str) -> None:
        for child, manifest in self.live.items():
            if child.kind == "Job":
                manifest["status"] = {"conditions": [{"type": how, "status": "True"}]}

    def image(self, process: str) -> str:
        deployment = self.live[Reference("apps/v1", "Deployment", f"minimal-{process}")]
        return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])

    def revisions(self) -> list[tuple[int, str]]:
        return [(revision.number, revision.image) for revision in revisions.history(self.live)]


def _good(service: OrderService) -> Cluster:
    """Give a cluster in which a resource was rolled out."""
    cluster = Cluster()
    _roll_out(cluster, service)
    return cluster


def _roll_out(cluster: Cluster, service: OrderService) -> None:
    cluster.write(service)
    cluster.end_job("Complete")
    cluster.write(service)
    cluster.roll_out()
    cluster.write(service)


@pytest.mark.parametrize(("path_before", "path_after"), list(permutations(EXAMPLES, 2)))
def test_a_revision_brings_back_all_that_pods_are_made_of(
    make: Any, path_before: str, path_after: str
) -> None:
    old, new = _named(make(path_before), "a"), _named(make(path_after), "a")
    revision = _roundtrip(controller_revision(old, 1))
    assert _pods(with_spec_of(new, revision["data"])) == _pods(old)


@pytest.mark.parametrize(("path_before", "path_after"), list(permutations(EXAMPLES, 2)))
def test_a_revision_leaves_size_reach_and_topology_as_they_are(
    make: Any, path_before: str, path_after: str
) -> None:
    open_to_all = {"exposeWithoutAuth": True}
    revision = _roundtrip(controller_revision(make(path_before, auth=open_to_all), 1))
    new = make(path_after).spec
    back = with_spec_of(make(path_after), revision["data"]).spec
    for section in ("api", "worker", "relay", "notifier"):
        assert getattr(back, section).replicas == getattr(new, section).replicas
    assert back.worker.autoscaling == new.worker.autoscaling
    assert (back.api.ingress, back.api.http_route) == (new.api.ingress, new.api.http_route)
    assert back.messaging.management_url == new.messaging.management_url
    assert back.messaging.retry_delays_seconds == new.messaging.retry_delays_seconds
    for section in ("rollout", "migrations", "slo", "network_policy", "mode", "paused"):
        assert getattr(back, section) == getattr(new, section)


_TOKENS = {"mode": "jwt", "jwksUrl": "https://a/keys", "issuer": "i", "audience": "a"}
_OUTSIDE = {
    "ingress": {"host": "shop.example"},
    "httpRoute": {"parentRefs": [{"name": "g"}]},
    "service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["192.0.2.0/24"]},
}


@pytest.mark.parametrize("entrance", _OUTSIDE)
def test_going_back_to_a_spec_without_tokens_closes_what_was_opened_since(
    make: Any, entrance: str
) -> None:
    revision = _roundtrip(controller_revision(make(), 1))
    new = make(auth=_TOKENS, api={entrance: _OUTSIDE[entrance]})
    back = with_spec_of(new, revision["data"]).spec
    assert back.auth.mode == "off"
    assert (back.api.ingress, back.api.http_route) == (None, None)
    assert back.api.service == make().spec.api.service


def test_going_back_leaves_open_what_was_meant_to_be_open_without_tokens(make: Any) -> None:
    revision = _roundtrip(controller_revision(make(auth={"exposeWithoutAuth": True}), 1))
    new = make(auth=_TOKENS, api={"ingress": _OUTSIDE["ingress"]})
    assert with_spec_of(new, revision["data"]).spec.api.ingress == new.spec.api.ingress


def test_another_size_is_no_other_revision_and_another_setting_is(make: Any) -> None:
    name = revision_name(make())
    assert name == revision_name(make(worker={"replicas": 9}, rollout={"autoRollback": False}))
    assert name != revision_name(make(worker={"prefetch": 9}))
    assert name != revision_name(make(image=V2))


def test_what_was_rolled_out_is_kept_once(make: Any) -> None:
    cluster = _good(make())
    assert cluster.revisions() == [(1, V1)]
    assert cluster.write(make()) == []


def test_what_is_good_again_is_the_newest_and_the_oldest_are_forgotten(make: Any) -> None:
    cluster = _good(make())
    _roll_out(cluster, _at(make(image=V2), 2))
    _roll_out(cluster, _at(make(), 3))
    assert cluster.revisions() == [(3, V1), (2, V2)]
    for number in range(revisions.LIMIT + 2):
        _roll_out(cluster, _at(make(worker={"prefetch": number + 100}), 4 + number))
    cluster.write(_at(make(worker={"prefetch": revisions.LIMIT + 101}), 99))
    assert len(cluster.revisions()) == revisions.LIMIT


def test_a_missed_deadline_goes_back_whole_and_stays_until_the_spec_changes(make: Any) -> None:
    cluster = _good(make())
    new = _at(make(image=V2, worker={"prefetch": 33}), 2)
    cluster.write(new)
    cluster.end_job("Complete")
    cluster.write(new)
    cluster.roll_out(late="worker")
    verdict = decide_rollback(cluster.snapshot(new))
    assert verdict is not None
    assert (verdict.reason, verdict.image, verdict.revision_image) == ("DeadlineMissed", V2, V1)

    service = msgspec.structs.replace(new, status=Status(rollback=verdict))
    cluster.write(service)
    assert {cluster.image(process.name) for process in processes.ALL} == {V1}
    cluster.roll_out()
    cluster.write(service)
    assert (cluster.write(service), cluster.revisions()) == ([], [(1, V1)])
    assert decide_rollback(cluster.snapshot(service)) == verdict

    # To scale and to pause make generations, too, but no other spec.
    for change in ({"worker": {"prefetch": 33, "replicas": 5}}, {"paused": True}, {}):
        next_service = _at(make(image=V2, **({"worker": {"prefetch": 33}} | change)), 3)
        next_service = msgspec.structs.replace(next_service, status=service.status)
        rollback_ = decide_rollback(cluster.snapshot(next_service))
        assert rollback_ is not None
        assert rollback_.revision == verdict.revision
    changed = _at(make(image=V2, worker={"prefetch": 34}), 3)
    cluster.write(msgspec.structs.replace(changed, status=service.status))
    assert cluster.image("worker") == V2


def test_going_back_to_what_gives_the_same_pods_now_is_refused(make: Any) -> None:
    """A newer operator makes other pods of the same spec: the one before is gone."""
    cluster = _good(make())
    (child,) = [child for child in cluster.live if child.kind == "ControllerRevision"]
    older = cluster.live.pop(child)
    renamed = older | {"metadata": older["metadata"] | {"name": "minimal-older"}}
    cluster.live[Reference(child.api_version, child.kind, "minimal-older")] = renamed
    cluster.roll_out(late="worker")
    snapshot = cluster.snapshot(make())
    assert snapshot.failure is not None
    assert decide_rollback(snapshot) is None
    assert "has the same spec" in snapshot.no_way_back


def test_a_failed_migration_is_tried_again_when_its_secret_is_another(make: Any) -> None:
    cluster, service = Cluster(), make()
    cluster.write(service)
    cluster.end_job("Failed")
    assert not cluster.snapshot(service).job_is_stale
    snapshot = msgspec.structs.replace(cluster.snapshot(service), secrets={"migrate": "d1"})
    assert snapshot.job_is_stale
    assert [deletion.kind for deletion in plan(snapshot).deletions] == ["Job"]


def test_a_failed_migration_goes_back_and_no_pod_is_touched(make: Any) -> None:
    cluster = _good(make())
    specs_before = {process.name: cluster.live[_of(process)]["spec"] for process in processes.ALL}
    settings = {child for child in cluster.live if child.kind == "ConfigMap"}
    new = _at(make(image=V2, worker={"prefetch": 33}), 2)
    cluster.write(new)
    assert settings < {child for child in cluster.live if child.kind == "ConfigMap"}
    cluster.end_job("Failed")
    verdict = decide_rollback(cluster.snapshot(new))
    assert verdict is not None
    assert verdict.reason == "MigrationFailed"
    service = msgspec.structs.replace(new, status=Status(rollback=verdict))
    cluster.write(service)
    specs_after = {process.name: cluster.live[_of(process)]["spec"] for process in processes.ALL}
    assert specs_after == specs_before
    assert [child for child in cluster.live if child.kind == "Job"], "its log is of use"


def _of(process: processes.Process) -> Reference:
    return Reference("apps/v1", "Deployment", f"minimal-{process.name}")


def test_a_failed_migration_is_tried_again_for_another_generation(make: Any) -> None:
    cluster = _good(make())
    new = _at(make(image=V2), 2)
    cluster.write(new)
    cluster.end_job("Failed")
    next_service = _at(make(image=V2, migrations={"backoffLimit": 9}), 3)
    assert decide_rollback(cluster.snapshot(next_service)) is None
    cluster.write(next_service)
    assert not [child for child in cluster.live if child.kind == "Job"]
    cluster.write(next_service)
    (job,) = [manifest for child, manifest in cluster.live.items() if child.kind == "Job"]
    assert (job["spec"]["backoffLimit"], "status" in job) == (9, False)


def test_without_auto_rollback_it_is_only_told(make: Any) -> None:
    cluster = _good(make())
    new = _at(make(image=V2, rollout={"autoRollback": False}), 2)
    cluster.write(new)
    cluster.end_job("Failed")
    snapshot = cluster.snapshot(new)
    assert (decide_rollback(snapshot), snapshot.no_way_back) == (
        None,
        "rollout.autoRollback is off",
    )


def test_a_first_roll_out_has_nothing_to_go_back_to(make: Any) -> None:
    cluster = Cluster()
    cluster.write(make())
    cluster.end_job("Failed")
    snapshot = cluster.snapshot(make())
    assert (decide_rollback(snapshot), snapshot.no_way_back) == (None, "there is no good revision")


def test_what_was_good_itself_is_not_gone_back_from(make: Any) -> None:
    cluster = _good(make())
    cluster.roll_out(late="api")
    snapshot = cluster.snapshot(make())
    assert decide_rollback(snapshot) is None
    assert "the last good revision has the same spec" in snapshot.no_way_back


def test_the_state_of_another_revision_is_no_failure_of_this_one(make: Any) -> None:
    """A Deployment that was late before has to be written and seen first."""
    cluster = _good(make())
    cluster.roll_out(late="api")
    assert (
        decide_rollback(cluster.snapshot(_at(make(image=V2, migrations={"enabled": False}), 2)))
        is None
    )
    cluster.write(_at(make(image=V2, migrations={"enabled": False}), 2))
    assert (
        decide_rollback(cluster.snapshot(_at(make(image=V2, migrations={"enabled": False}), 2)))
        is None
    )


def test_a_request_counts_for_its_generation_only(make: Any) -> None:
    cluster = _good(make())
    _roll_out(cluster, _at(make(image=V2), 2))
    now = _at(make(image=V2), 2)
    back = revision_name(make())
    requested = _asking(now, rollback.request(back, 2))
    cluster.write(requested)
    assert cluster.image("api") == V1
    verdict = decide_rollback(cluster.snapshot(requested))
    assert verdict is not None
    assert verdict.reason == "Requested"
    cluster.roll_out()
    cluster.write(requested)
    assert cluster.revisions() == [(3, V1), (2, V2)]

    service = msgspec.structs.replace(now, status=Status(rollback=verdict))
    assert cluster.snapshot(service).running.rollback is None, "taken back: without the annotation"
    assert cluster.snapshot(_at(requested, 3)).running.rollback is None
    scaled = _asking(_at(make(image=V2, worker={"replicas": 5}), 3), rollback.request(back, 2))
    scaled_back = msgspec.structs.replace(scaled, status=Status(rollback=verdict))
    assert cluster.snapshot(scaled_back).running.rollback is not None, "to scale takes nothing back"


@pytest.mark.parametrize("text", ["", "minimal-0@1"])
def test_a_request_that_is_none_changes_nothing(make: Any, text: str) -> None:
    cluster = _good(make())
    snapshot = cluster.snapshot(_asking(_at(make(), 2), text))
    assert (snapshot.running.rollback, snapshot.running.problem) == (None, "")


def test_a_request_for_an_unknown_revision_is_told(make: Any) -> None:
    cluster = _good(make())
    snapshot = cluster.snapshot(_asking(_at(make(), 2), "minimal-0@2"))
    assert snapshot.running.rollback is None
    assert revision_name(make()) in snapshot.running.problem


def test_a_revision_that_cannot_be_read_is_not_gone_back_to(make: Any) -> None:
    cluster = _good(make())
    (child,) = [child for child in cluster.live if child.kind == "ControllerRevision"]
    cluster.live[child]["data"] = {"spec": {"image": 1}}
    new = _at(make(image=V2), 2)
    cluster.write(new)
    cluster.end_job("Failed")
    assert decide_rollback(cluster.snapshot(new)) is None


def test_a_rollback_whose_revision_is_gone_ends(make: Any) -> None:
    instead = Rollback(2, V2, "minimal-0", V1, "DeadlineMissed")
    service = _at(make(image=V2), 2, status=Status(rollback=instead))
    snapshot = _good(make()).snapshot(service)
    assert (snapshot.running.rollback, snapshot.running.service.spec.image) == (None, V2)
    assert "minimal-0" in snapshot.running.problem


def test_old_pods_keep_their_flows_until_they_are_gone(make: Any) -> None:
    cluster = _good(make())
    new = _at(make(image=V2, database={"port": 6432}), 2)

    def ports() -> set[int]:
        policy = cluster.live[Reference("networking.k8s.io/v1", "NetworkPolicy", "minimal-relay")]
        return {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}

    assert ports() == {5432, 5672}
    cluster.write(new)
    assert ports() == {5432, 5672, 6432}
    _roll_out(cluster, new)
    assert ports() == {5672, 6432}


def test_settings_of_another_revision_go_once_the_roll_out_is_done(make: Any) -> None:
    cluster = _good(make())
    _roll_out(cluster, _at(make(worker={"prefetch": 33}), 2))
    cluster.write(_at(make(worker={"prefetch": 33}), 2))
    names = [child.name for child in cluster.live if child.kind == "ConfigMap"]
    assert len(names) == len(processes.ALL)


def test_an_account_stays_until_no_pod_names_it_any_more(make: Any) -> None:
    account = Reference("v1", "ServiceAccount", "minimal")
    cluster = _good(make())
    new = _at(make(image=V2, podTemplate={"serviceAccountName": "theirs"}), 2)
    cluster.write(new)
    assert account in cluster.live  # the migration runs
    cluster.end_job("Complete")
    cluster.write(new)
    assert account in cluster.live  # pods are being replaced
    cluster.roll_out()
    cluster.write(new)
    assert account not in cluster.live


def test_other_secrets_are_other_pods_of_the_same_revision(make: Any) -> None:
    service = make()
    snapshot = take_snapshot(service, {}, frozenset(), {"relay": "digest"})
    (relay,) = [
        write.manifest for write in plan(snapshot).writes if str(write.reference) == str(RELAY)
    ]
    annotations = relay["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {"orders.platform.dev/secrets": "digest"}
    assert relay["metadata"]["annotations"]["orders.platform.dev/revision"] == snapshot.revision
    assert snapshot.revision == revision_name(service)
    assert reference(with_signature(relay)) == RELAY


RELAY = Reference("apps/v1", "Deployment", "minimal-relay")


@pytest.mark.parametrize("text", ["x", "x@", "@2", "x@two", "X@2", "x@" + "9" * 19])
def test_a_request_that_cannot_be_read_is_told(make: Any, text: str) -> None:
    running = _good(make()).snapshot(_asking(_at(make(), 2), text)).running
    assert running.rollback is None
    assert repr(text) in running.problem
    assert "<ControllerRevision>@<generation>" in running.problem
