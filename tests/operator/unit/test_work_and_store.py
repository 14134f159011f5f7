"""The queue of resources, and the copy of their children."""

import asyncio
from collections.abc import Callable
from typing import Any

from orderservice_operator.children.manifest import OWNER_LABEL, Reference
from orderservice_operator.cluster.store import Store
from orderservice_operator.control.work_queue import WorkQueue
from orderservice_operator.errors import Transient
from orderservice_operator.resource.decoding import Invalid
from orderservice_operator.resource.index import ResourceIndex
from orderservice_operator.resource.key import Key

A, B = Key("n", "a"), Key("n", "b")


def _work(keys: list[Key], handle: Any, *, until: Callable[[], bool], workers: int = 2) -> None:
    """Work until something is true, and until the queue is idle."""

    async def main() -> None:
        queue = WorkQueue("test")
        tasks = [asyncio.create_task(queue.run(handle(queue))) for _ in range(workers)]
        for key in keys:
            queue.add(key)
        async with asyncio.timeout(60):
            while not (until() and queue.idle):  # noqa: ASYNC110 the queue tells nobody
                await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


def test_a_resource_asked_for_many_times_is_looked_at_once() -> None:
    handled: list[Key] = []

    def handle(_queue: WorkQueue) -> Any:
        async def handle_key(key: Key) -> None:
            handled.append(key)

        return handle_key

    _work([A, A, A, B], handle, until=lambda: B in handled)
    assert sorted(handled, key=str) == [A, B]


def test_a_resource_asked_for_during_its_work_is_looked_at_once_more_and_never_twice_at_once() -> (
    None
):
    running, maximum, looks = 0, 0, 0

    def handle(queue: WorkQueue) -> Any:
        async def handle_key(key: Key) -> None:
            nonlocal running, maximum, looks
            running, looks = running + 1, looks + 1
            maximum = max(maximum, running)
            if looks == 1:
                queue.add(key)
                queue.add(key)
            await asyncio.sleep(0.01)
            running -= 1

        return handle_key

    _work([A], handle, until=lambda: looks >= 2)
    assert (maximum, looks) == (1, 2)


def test_a_failure_is_tried_again_and_holds_up_nobody() -> None:
    handled: list[Key] = []

    def handle(_queue: WorkQueue) -> Any:
        async def handle_key(key: Key) -> None:
            handled.append(key)
            if key == A and handled.count(A) == 1:
                raise Transient("no")
            if key == B and handled.count(B) == 1:
                raise ValueError("a fault of ours")

        return handle_key

    _work([A, B], handle, until=lambda: len(handled) >= 4, workers=1)
    assert handled[:2] == [A, B]
    assert sorted(handled[2:], key=str) == [A, B]


def _child(name: str, version: int, owner: str = "a") -> Any:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": "n",
            "resourceVersion": str(version),
            "labels": {OWNER_LABEL: owner},
            "managedFields": [
                {"manager": "orderservice-operator", "fieldsV1": {"f:spec": {"f:large": {}}}}
            ],
        },
    }


KIND = ("v1", "ConfigMap")


def _event(kind: str, child: Any) -> Any:
    return {"type": kind, "object": child}


def test_children_come_and_go_with_events() -> None:
    notified: list[Key] = []
    store = Store(notified.append)
    store.keep_only(KIND, "1", store.take(KIND, [_child("x", 1)]))
    store.see(KIND, _event("ADDED", _child("y", 2)))
    store.see(KIND, _event("DELETED", _child("x", 3)))
    assert set(store.children(A)) == {Reference("v1", "ConfigMap", "y")}
    assert notified == [A, A, A]


def test_what_is_kept_has_no_managed_fields() -> None:
    store = Store(lambda _: None)
    store.see(KIND, _event("ADDED", _child("x", 2)))
    (child,) = store.children(A).values()
    assert "managedFields" not in child["metadata"]


def test_what_others_wrote_is_kept_of_the_managed_fields() -> None:
    store, child = Store(lambda _: None), _child("x", 2)
    other_entry = {"manager": "somebody", "fieldsV1": {"f:spec": {"f:small": {}}}}
    child["metadata"]["managedFields"].append(other_entry)
    store.see(KIND, _event("ADDED", child))
    (stored,) = store.children(A).values()
    assert stored["metadata"]["managedFields"] == [
        {"manager": "somebody", "additions": {"f:small": {".": {}}}}
    ]


def test_a_child_belongs_to_its_owner_whatever_its_label_says() -> None:
    store, child = Store(lambda _: None), _child("x", 2)
    owner = {"apiVersion": "orders.platform.dev/v1alpha1", "kind": "OrderService", "name": A.name}
    child["metadata"]["ownerReferences"] = [owner]
    child["metadata"]["labels"] = {OWNER_LABEL: "other"}
    store.see(KIND, _event("ADDED", child))
    assert len(store.children(A)) == 1


def test_an_older_state_never_replaces_a_newer_one() -> None:
    store = Store(lambda _: None)
    store.see(KIND, _event("ADDED", _child("x", 5)))
    store.see(KIND, _event("MODIFIED", _child("x", 4)))
    (child,) = store.children(A).values()
    assert child["metadata"]["resourceVersion"] == "5"


def test_an_answer_to_a_write_that_the_watch_has_overtaken_is_ignored() -> None:
    store = Store(lambda _: None)
    store.see(KIND, _event("ADDED", _child("x", 5)))
    store.see(KIND, _event("DELETED", _child("x", 7)))
    store.wrote(_child("x", 6))
    assert store.children(A) == {}


def test_an_answer_to_a_write_is_known_at_once_and_asks_for_nothing() -> None:
    notified: list[Key] = []
    store = Store(notified.append)
    store.wrote(_child("x", 6))
    store.see(KIND, _event("ADDED", _child("x", 6)))
    assert len(store.children(A)) == 1
    assert notified == []


def test_a_listing_takes_away_what_it_does_not_have() -> None:
    store = Store(lambda _: None)
    store.see(KIND, _event("ADDED", _child("x", 5)))
    store.keep_only(KIND, "9", store.take(KIND, [_child("y", 8)]))
    assert [reference.name for reference in store.children(A)] == ["y"]


def _body(version: int, generation: int, **spec: Any) -> Any:
    reference = {"name": "s"}
    metadata = {"namespace": "n", "name": "a", "uid": "u"}
    return {
        "metadata": metadata | {"resourceVersion": str(version), "generation": generation},
        "spec": {
            "image": "a:1",
            "api": {"secretRef": reference},
            "notifier": {"secretRef": reference},
            "database": {"primarySecretRef": reference},
            "messaging": {"secretRef": reference},
            **spec,
        },
    }


def test_a_status_written_asks_for_nothing_new() -> None:
    resources = ResourceIndex()
    assert resources.put(_body(1, 1))
    assert not resources.put(_body(2, 1) | {"status": {"phase": "Ready"}})
    assert resources.put(_body(3, 2))


def test_an_answer_to_a_write_brings_back_no_resource_that_is_gone() -> None:
    resources = ResourceIndex()
    resources.wrote(_body(2, 1))
    assert resources.known() == []
    resources.put(_body(2, 1))
    resources.wrote(_body(3, 1) | {"status": {"phase": "Ready"}})
    (service,) = resources.services()
    assert service.status.phase == "Ready"


def test_an_answer_to_a_write_tells_what_somebody_else_changed_before_it() -> None:
    """The watch delivers it later, and it is not new then: no reconcile would follow."""
    resources = ResourceIndex()
    resources.put(_body(2, 1))
    assert not resources.wrote(_body(3, 1) | {"status": {"phase": "Ready"}})
    assert resources.wrote(_body(5, 2))
    assert not resources.put(_body(4, 2))
    going = _body(7, 2)
    going["metadata"]["deletionTimestamp"] = "2026-11-28T00:00:00Z"
    assert resources.wrote(going)


def test_whoever_says_first_that_a_resource_asks_for_something_its_broker_is_looked_at_too() -> (
    None
):
    """A `managementUrl` set right before a status of ours was written was not looked at."""
    requested: list[Key] = []
    resources = ResourceIndex(requested.append)
    resources.put(_body(1, 1))
    assert requested == [A]
    resources.wrote(_body(3, 2) | {"status": {"phase": "Ready"}})
    assert requested == [A, A]
    resources.put(_body(2, 2))
    resources.put(_body(3, 2))
    assert requested == [A, A]


def test_any_annotation_asks_for_a_look() -> None:
    """A person has no other way to ask for one, and the reason of a pause is in an annotation."""
    resources = ResourceIndex()
    resources.put(_body(1, 1))
    noted = _body(2, 1)
    noted["metadata"]["annotations"] = {"example.org/note": "1"}
    assert resources.put(noted)
    assert not resources.put(noted)


def test_only_the_resource_that_is_gone_is_dropped() -> None:
    """Another may have its name by now."""
    resources = ResourceIndex()
    resources.put(_body(2, 1))
    resources.drop(A, "another")
    assert resources.known() == [A]
    resources.drop(A, "u")
    assert resources.known() == []


def test_a_resource_that_cannot_be_read_says_where() -> None:
    resources = ResourceIndex()
    resources.put(_body(1, 1, worker={"prefetch": "many"}))
    invalid = resources.get(A)
    assert isinstance(invalid, Invalid)
    assert "$.spec.worker.prefetch" in invalid.problem


def test_the_conditions_of_a_resource_that_cannot_be_read_are_told() -> None:
    resources = ResourceIndex()
    condition = {"type": "Ready", "status": "False", "reason": "InvalidSpec"}
    resources.put(
        _body(1, 1, worker={"prefetch": "many"}) | {"status": {"conditions": [condition]}}
    )
    assert isinstance(resources.get(A), Invalid)
    assert list(resources.conditions()) == [("n", "a", "Ready", "False", "InvalidSpec")]


def test_a_listing_of_one_namespace_leaves_the_others_alone() -> None:
    store = Store(lambda _: None)
    other = _child("y", 9)
    other["metadata"]["namespace"] = "m"
    store.keep_only(KIND, "9", store.take(KIND, [other]), "m")
    store.keep_only(KIND, "5", store.take(KIND, [_child("x", 4)]), "n")
    assert store.children(A)
    store.wrote(_child("z", 6))  # older than what the other namespace's watch has seen
    assert Reference("v1", "ConfigMap", "z") in store.children(A)
    store.keep_only(KIND, "10", set(), "n")
    assert not store.children(A)
    assert store.children(Key("m", A.name))
