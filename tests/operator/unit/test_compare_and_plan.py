"""Which differences count, and which writes follow from them."""

import copy
from typing import Any

import pytest

from orderservice_operator.children.manifest import OWNER_LABEL, Reference, reference
from orderservice_operator.state.compare import first_difference
from orderservice_operator.state.plan import Plan, diff, with_signature


@pytest.mark.parametrize(
    ("desired", "live"),
    [
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"b": {}, "c": None, "d": []}, {}),
        ({"paused": False, "minReadySeconds": 0}, {}),
        ({"cpu": "1000m"}, {"cpu": "1"}),
        ({"memory": "1024Mi"}, {"memory": "1Gi"}),
        ({"volumes": [{"name": "a"}]}, {"volumes": [{"name": "b"}, {"name": "a"}]}),
        (
            {"ports": [{"port": 53, "protocol": "UDP"}]},
            {"ports": [{"port": 53, "protocol": "UDP"}]},
        ),
    ],
)
def test_what_the_server_adds_or_rewrites_is_no_difference(desired: Any, live: Any) -> None:
    assert first_difference(desired, live) is None


@pytest.mark.parametrize(
    ("desired", "live", "path"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "/a/b"),
        ({"a": True}, {}, "/a"),
        ({"replicas": 0}, {"replicas": 1}, "/replicas"),
        ({"env": [{"name": "a"}]}, {"env": []}, "/env/0"),
        ({"egress": [{"ports": [1]}]}, {"egress": [{"ports": [1]}, {}]}, "/egress"),
        ({"command": ["a"]}, {"command": ["a", "b"]}, "/command"),
        ({"selector": {"a": "1"}}, {"selector": {"a": "1", "b": "2"}}, "/selector"),
        ({"cpu": "1000m"}, {"cpu": "2"}, "/cpu"),
        ({"automountServiceAccountToken": False}, {}, "/automountServiceAccountToken"),
        ({"allowPrivilegeEscalation": False}, {}, "/allowPrivilegeEscalation"),
        ({"ingress": []}, {"ingress": [{}]}, "/ingress"),
        (
            {"ingress": [{"from": [{"podSelector": {}}]}]},
            {"ingress": [{"from": [{"podSelector": {}, "namespaceSelector": {}}]}]},
            "/ingress",
        ),
        ({"env": [{"name": "a"}]}, {"env": [{"name": "a"}, {"name": "b"}]}, "/env"),
        ({"env": [{"name": "a"}]}, {"env": [{"name": "a"}, {"name": "a"}]}, "/env"),
        ({"containers": [{"name": "a"}]}, {"containers": [{"name": "a"}, {}]}, "/containers"),
        (
            {"containers": [{"name": "a"}]},
            {"containers": [{"name": "a"}], "initContainers": [{"name": "b"}]},
            "/initContainers",
        ),
    ],
)
def test_a_difference_is_named_by_its_path(desired: Any, live: Any, path: str) -> None:
    assert first_difference(desired, live) == path


def _object(name: str, kind: str = "ConfigMap", **fields: Any) -> Any:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **fields}


def _plan(desired: list[Any], live: list[Any], staying: frozenset[Reference] = frozenset()) -> Plan:
    return diff(desired, {reference(manifest): manifest for manifest in live}, staying=staying)


def test_nothing_is_written_when_nothing_changed() -> None:
    desired = _object("a", data={"x": "1"})
    live = with_signature(desired) | {"status": {"more": 1}}
    assert _plan([desired], [live]) == Plan()


def test_what_is_missing_is_made() -> None:
    (write,) = _plan([_object("a")], []).writes
    assert write.reference == Reference("v1", "ConfigMap", "a")
    assert not write.path
    assert not write.repair


def test_drift_is_told_from_a_new_wish() -> None:
    desired = _object("a", data={"x": "1"})
    live = copy.deepcopy(with_signature(desired))
    live["data"]["x"] = "2"
    (write,) = _plan([desired], [live]).writes
    assert (write.path, write.repair) == ("/data/x", True)
    (write,) = _plan([_object("a", data={"x": "3"})], [with_signature(desired)]).writes
    assert not write.repair


def test_a_field_that_is_no_longer_wanted_is_noticed() -> None:
    live = with_signature(_object("a", data={"x": "1", "y": "2"}))
    (write,) = _plan([_object("a", data={"x": "1"})], [live]).writes
    assert "applied" in write.path


OURS = {"apiVersion": "orders.platform.dev/v1alpha0", "kind": "OrderService", "name": "shop"}


def _owned(name: str, *owners: dict[str, Any], kind: str = "ConfigMap") -> Any:
    manifest = _object(name, kind)
    manifest["metadata"] |= {"labels": {OWNER_LABEL: "shop"}, "ownerReferences": list(owners)}
    return manifest


def test_what_is_not_desired_goes_unless_it_is_kept() -> None:
    old, job = _owned("old", OURS), _owned("job", OURS, kind="Job")
    plan = _plan([], [old, job], frozenset({reference(job)}))
    assert plan.deletions == (reference(old),)


@pytest.mark.parametrize(
    "owners",
    [
        [],
        [OURS | {"apiVersion": "others.dev/v1"}],
        [OURS | {"kind": "ScaledObject"}],
    ],
)
def test_what_only_has_our_labels_stays(owners: list[dict[str, Any]]) -> None:
    assert _plan([], [_owned("copy", *owners)]) == Plan()


def test_a_job_is_made_once_and_then_left_alone() -> None:
    assert (
        _plan([_object("j", "Job", spec={"x": 1})], [_object("j", "Job", spec={"x": 2})]) == Plan()
    )


def test_items_that_share_a_name_are_compared_by_their_place() -> None:
    both = [{"name": "secret", "parameter": "host"}, {"name": "secret", "parameter": "user"}]
    assert first_difference(both, both) is None
    assert first_difference(both, both[::-1]) is not None
