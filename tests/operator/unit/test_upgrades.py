"""A newer operator that creates different pods replaces those of a few resources at a time."""

from typing import Any

import msgspec
import pytest

from orderservice_operator.children import processes
from orderservice_operator.children.manifest import REVISION_ANNOTATION, Manifest, Reference
from orderservice_operator.control.upgrades import Upgrades
from orderservice_operator.resource.index import ResourceIndex
from orderservice_operator.resource.key import Key
from orderservice_operator.resource.spec import OrderService
from orderservice_operator.resource.status import Condition, Status
from orderservice_operator.state.planning import decide_rollback, plan
from orderservice_operator.state.snapshot import Snapshot, take_snapshot

OLD = "minimal-0123456789"
LATE = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
READY = (Condition("Ready", "True", "AllReady"),)


def _service(make: Any, name: str = "a", **status_changes: Any) -> OrderService:
    """Return a resource whose pods an older operator made, and that was ready."""
    service: OrderService = make()
    metadata = msgspec.structs.replace(service.metadata, name=name, uid=name)
    status = msgspec.structs.replace(
        Status(observed_generation=1, revision=OLD, revision_generation=1, conditions=READY),
        **status_changes,
    )
    spec = msgspec.structs.replace(
        service.spec, migrations=msgspec.structs.replace(service.spec.migrations, enabled=False)
    )
    return msgspec.structs.replace(service, metadata=metadata, status=status, spec=spec)


class World:
    """Deployments of resources, and the turns of an operator."""

    def __init__(self, at_once: int = 1) -> None:
        self.live: dict[Key, dict[Reference, Manifest]] = {}
        self.looked_at: list[Key] = []
        self.resources = ResourceIndex()
        self.upgrades = Upgrades(self.resources, at_once, self.looked_at.append)

    def snapshot(self, service: OrderService) -> Snapshot:
        key = Key(service.metadata.namespace, service.metadata.name)
        if key not in self.live:
            self.live[key] = {}
            self.live[key] = _carried_out(take_snapshot(service, {}, frozenset(), {}), OLD)
        return take_snapshot(service, self.live[key], frozenset(), {})

    def judge(self, service: OrderService) -> str | None:
        key = Key(service.metadata.namespace, service.metadata.name)
        return self.upgrades.judge(key, self.snapshot(service))

    def roll_out(self, service: OrderService, *, late: bool = False) -> None:
        """Replace all pods; where they are late, none of the new ones is ever ready."""
        key = Key(service.metadata.namespace, service.metadata.name)
        snapshot = take_snapshot(service, self.live[key], frozenset(), {})
        self.live[key] = _carried_out(snapshot, snapshot.revision, late=late)


def _carried_out(
    snapshot: Snapshot, revision: str, *, late: bool = False
) -> dict[Reference, Manifest]:
    """Return what is live once all is written and the controllers did their part."""
    manifests = {write.reference: write.manifest for write in plan(snapshot).writes}
    live = dict(snapshot.live) | manifests
    for reference, body in live.items():
        if reference.kind == "Deployment":
            body["metadata"] |= {"generation": 1}
            body["metadata"]["annotations"][REVISION_ANNOTATION] = revision
            pods = body["spec"]["replicas"]
            body["status"] = {
                "observedGeneration": 1,
                "replicas": pods + late,
                "updatedReplicas": 1 if late else pods,
                "availableReplicas": pods,
                "conditions": [LATE] if late else [],
            }
    return live


def test_one_resource_has_its_turn_and_the_next_follows_when_its_pods_are_ready(make: Any) -> None:
    world, first, second = World(), _service(make, "a"), _service(make, "b")
    assert world.judge(first) == "UnderWay"
    assert world.judge(second) == "Waiting"
    assert world.judge(first) == "UnderWay"
    assert world.looked_at == []
    world.roll_out(first)
    assert world.judge(first) is None
    assert world.looked_at == [Key("shop", "b")]
    assert world.judge(second) == "UnderWay"


def test_as_many_as_are_wanted_have_their_turn_at_once(make: Any) -> None:
    world = World(at_once=3)
    judged = [world.judge(_service(make, name)) for name in "abcde"]
    assert judged == ["UnderWay"] * 3 + ["Waiting"] * 2


def test_one_whose_new_pods_are_never_ready_holds_up_the_others_and_is_not_called_rolled_back(
    make: Any,
) -> None:
    world, first, second = World(), _service(make, "a"), _service(make, "b")
    world.judge(first)
    world.roll_out(first, late=True)
    under_way = msgspec.structs.replace(
        first, status=msgspec.structs.replace(first.status, upgrade="UnderWay", conditions=())
    )
    assert world.judge(under_way) == "UnderWay"
    assert world.judge(second) == "Waiting"
    assert decide_rollback(world.snapshot(under_way)) is None
    paused = msgspec.structs.replace(
        under_way, spec=msgspec.structs.replace(under_way.spec, paused=True)
    )
    assert world.judge(paused) is None
    assert world.judge(second) == "UnderWay"


def test_one_that_was_not_ready_before_holds_up_nobody_beyond_its_deadline(make: Any) -> None:
    world, first, second = World(), _service(make, "a", conditions=()), _service(make, "b")
    assert world.judge(first) == "UnderWayUnready"
    assert world.judge(second) == "Waiting"
    world.roll_out(first, late=True)
    assert world.judge(first) == "UnderWayUnready"
    assert world.looked_at == [Key("shop", "b")]
    assert world.judge(second) == "UnderWay"


def test_after_a_restart_the_status_says_who_has_its_turn(make: Any) -> None:
    world = World()
    body = msgspec.to_builtins(_service(make, "a", upgrade="UnderWay"))
    body["metadata"]["resourceVersion"] = "1"
    world.resources.put(body)
    assert world.judge(_service(make, "b")) == "Waiting"
    assert world.judge(_service(make, "a", upgrade="UnderWay")) == "UnderWay"


def test_one_that_is_deleted_gives_its_turn_away(make: Any) -> None:
    world = World()
    world.judge(_service(make, "a"))
    world.judge(_service(make, "b"))
    world.upgrades.forget(Key("shop", "a"))
    assert world.looked_at == [Key("shop", "b")]


@pytest.mark.parametrize(
    "status_changes",
    [
        {"revision_generation": 0},  # another spec was rolled out last
        {"revision": "", "revision_generation": 0},  # nothing was yet
    ],
)
def test_a_change_of_the_spec_does_not_wait(make: Any, status_changes: dict[str, Any]) -> None:
    world = World()
    world.judge(_service(make, "a"))
    assert world.judge(_service(make, "b", **status_changes)) is None


def test_a_resource_that_waits_keeps_its_pods_and_is_ready(make: Any) -> None:
    world, service = World(), _service(make, "a")
    snapshot = msgspec.structs.replace(world.snapshot(service), held=True, revision=OLD)
    assert all(snapshot.rollouts[process.name].serving for process in processes.ALL)
    decision = plan(snapshot)
    assert not [write for write in decision.writes if write.reference.kind == "Deployment"]
    assert not [write for write in decision.writes if write.reference.kind == "ControllerRevision"]
    assert decision.deletions == ()
    kinds = {write.reference.kind for write in plan(world.snapshot(service)).writes}
    assert "Deployment" in kinds
