"""Which fields of a child others have written, and how they are removed."""

from typing import Any

from orderservice_operator.state.ownership import (
    CHILDREN,
    additions,
    foreign_entries,
    merge_patch,
    removal,
    without_additions,
)

CONTAINER = 'k:{"name":"api"}'
OURS = {
    "f:replicas": {},
    "f:template": {
        "f:metadata": {"f:labels": {"f:app": {}}},
        "f:spec": {
            "f:containers": {CONTAINER: {".": {}, "f:name": {}, "f:image": {}}},
            "f:volumes": {'k:{"name":"tmp"}': {".": {}, "f:name": {}}},
        },
    },
}


def _entry(manager: str, spec: Any, **fields: Any) -> Any:
    return {"manager": manager, "fieldsV1": {"f:spec": spec}, **fields}


def _deployment(*entries: Any, **pod: Any) -> Any:
    containers = [{"name": "api", "image": "a:1", "dnsPolicy": "default"}]
    spec = {"containers": containers, "volumes": [{"name": "tmp"}]} | pod
    return {
        "metadata": {
            "resourceVersion": "7",
            "managedFields": [_entry(CHILDREN, OURS, operation="Apply"), *entries],
        },
        "spec": {"replicas": 2, "template": {"metadata": {"labels": {"app": "x"}}, "spec": spec}},
    }


def _pod(fields: Any) -> Any:
    return {"f:template": {"f:spec": fields}}


def test_defaults_and_what_nobody_is_noted_for_stay() -> None:
    live = _deployment(dnsPolicy="ClusterFirst")
    assert additions(live) == []
    assert removal(live) is None
    assert without_additions(live) is live


def test_a_field_of_somebody_else_is_removed() -> None:
    live = _deployment(_entry("kubectl-edit", _pod({"f:hostNetwork": {}})), hostNetwork=True)
    assert additions(live) == ["/spec/template/spec/hostNetwork"]
    assert removal(live) == {
        "metadata": {"resourceVersion": "7"},
        "spec": {"template": {"spec": {"hostNetwork": None}}},
    }


def test_an_item_of_a_list_is_removed_and_the_others_stay() -> None:
    other_fields: Any = {
        'k:{"name":"host"}': {".": {}, "f:name": {}, "f:hostPath": {".": {}, "f:path": {}}}
    }
    volumes = [{"name": "tmp"}, {"name": "host", "hostPath": {"path": "/"}}]
    live = _deployment(_entry("kubectl-edit", _pod({"f:volumes": other_fields})), volumes=volumes)
    assert additions(live) == ["/spec/template/spec/volumes/host"]
    patch: Any = removal(live)
    assert patch["spec"] == {"template": {"spec": {"volumes": [{"name": "tmp"}]}}}


def test_a_field_inside_our_item_is_removed_and_the_item_stays() -> None:
    other_fields: Any = {"f:containers": {CONTAINER: {"f:args": {}, "f:image": {}}}}
    containers = [{"name": "api", "image": "a:1", "args": ["x"]}]
    live = _deployment(_entry("kubectl-edit", _pod(other_fields)), containers=containers)
    assert additions(live) == ["/spec/template/spec/containers/api/args"]
    (container,) = without_additions(live)["spec"]["template"]["spec"]["containers"]
    assert container == {"name": "api", "image": "a:1"}


def test_autoscalers_restarts_and_subresources_are_let_in() -> None:
    restart: Any = {"f:kubectl.kubernetes.io/restartedAt": {}}
    annotated = {"f:template": {"f:metadata": {"f:annotations": {".": {}, **restart}}}}
    entries = [
        _entry("kube-controller-manager", {"f:replicas": {}}, subresource="scale"),
        _entry("somebody", {"f:replicas": {}}),
        _entry("kubectl-rollout", annotated),
        {"manager": "kube-controller-manager", "fieldsV1": {"f:status": {"f:replicas": {}}}},
    ]
    assert foreign_entries(_deployment(*entries)) == []

    fields = {"f:template": {"f:metadata": {"f:annotations": {".": {}, **restart, "f:theirs": {}}}}}
    live = _deployment(_entry("kubectl-edit", fields))
    assert additions(live) == ["/spec/template/metadata/annotations/theirs"]


def test_what_is_kept_of_the_entries_gives_the_same_answer_again() -> None:
    live = _deployment(_entry("kubectl-edit", _pod({"f:hostNetwork": {}})), hostNetwork=True)
    stored = live | {"metadata": live["metadata"] | {"managedFields": foreign_entries(live)}}
    assert additions(stored) == additions(live)
    assert removal(stored) == removal(live)


def test_a_merge_patch_names_what_goes_and_replaces_lists() -> None:
    manifest_before = {"a": 1, "b": {"c": 1, "d": 2}, "e": [1, 2]}
    assert merge_patch(manifest_before, {"a": 1, "b": {"c": 1}, "e": [1]}) == {
        "b": {"d": None},
        "e": [1],
    }
