"""Every field of the resource does something: a changed one changes what is made from it."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from orderservice_operator.children import topology
from orderservice_operator.children.context import Context, MetricsApi
from orderservice_operator.children.desired import desired
from orderservice_operator.children.kinds import (
    HTTP_ROUTE,
    PROMETHEUS_RULE,
    SCALED_OBJECT,
    SERVICE_MONITOR,
)
from orderservice_operator.crd.schema import Schema, schema
from orderservice_operator.resource.spec import OrderService, Spec
from orderservice_operator.state.capacity import most_connections

MONITORED = frozenset({SERVICE_MONITOR, PROMETHEUS_RULE, HTTP_ROUTE})
# What a cluster may have: who scales the worker depends on it.
CLUSTERS = (
    Context(MONITORED | {SCALED_OBJECT}),
    Context(MONITORED, migrated=False, metrics=MetricsApi("other", answers=True)),
    Context(),
)
# Fields that change what the operator does, not what it makes; with the test that shows it.
BEHAVIOUR = {
    ".mode": "test_reconcile.test_observing_writes_nothing_and_says_what_it_would",
    ".paused": "test_reconcile.test_a_paused_resource_is_left_alone",
    ".messaging.provision": "test_broker.test_a_virtual_host_and_users_are_made_when_asked",
    ".messaging.deletionPolicy": "test_broker.test_empty_queues_go_with_the_resource_when_asked",
    ".database.maxConnections": "test_status.test_pools_that_exceed_the_server_are_told",
    ".auth.exposeWithoutAuth": "test_resource_schema, of entrances without tokens",
    ".rollout.autoRollback": "test_reconcile, of roll-outs that fail",
}
_USER = {
    "primarySecretRef": {"name": "u"},
    "replicaSecretRef": {"name": "u", "key": "replica"},
    "sessionSecretRef": {"name": "u", "key": "session"},
}
# Sections of which a resource has one of two, so that both are tried.
BASES: dict[str, Any] = {
    "full": {},
    "key": {"auth": {"jwksUrl": None, "keySecretRef": {"name": "k", "key": "pem"}}},
    "session": {"database": {"sessionSecretRef": {"name": "d", "key": "session"}}},
    "budget": {
        "api": {"autoscaling": None, "podDisruptionBudget": {"maxUnavailable": 1}},
        "relay": {"replicas": 4, "podDisruptionBudget": {"minAvailable": 1}},
        "worker": {"autoscaling": None, "podDisruptionBudget": {"minAvailable": 1}},
        "notifier": {"podDisruptionBudget": {"minAvailable": 1}},
    },
    "percent": {"relay": {"replicas": 4, "podDisruptionBudget": {"maxUnavailable": 1}}},
    "scaled": {"worker": {"autoscaling": {"provider": "External"}}},
    "users": {
        "api": {"database": _USER, "cache": {"secretRef": {"name": "r"}}},
        "relay": {"database": _USER, "messaging": {"secretRef": {"name": "m"}}},
        "worker": {
            "database": _USER,
            "messaging": {"secretRef": {"name": "m"}},
            "cache": {"secretRef": {"name": "r"}},
        },
        "notifier": {"database": _USER, "messaging": {"secretRef": {"name": "m"}}},
        "migrations": {"database": _USER},
        "reconciliation": {"database": _USER},
    },
    "limits": {"notifier": {"podDisruptionBudget": {"maxUnavailable": 1}}},
    "tls": {"api": {"gateway": {"tlsSecretRef": {"name": "t"}}}},
}


def _leaves(node: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    if "properties" not in node:
        yield path, node
    for name, child in node.get("properties", {}).items():
        yield from _leaves(child, f"{path}.{name}")


# A process's own template is merged over spec.podTemplate (test_pod_options); one field shows it.
LEAVES = {
    path: node
    for path, node in _leaves(schema(inspect.type_info(Spec)))
    if path.count(".podTemplate.") * path.count(".") < 3 or path.endswith(".annotations")
}


def _products(spec: Any) -> Any:
    body = {"metadata": {"name": "n", "namespace": "s", "uid": "u"}, "spec": spec}
    service = msgspec.convert(body, OrderService)
    return (
        [desired(service, context) for context in CLUSTERS],
        msgspec.to_builtins(topology.desired(service)),
        most_connections(service),
    )


def _others(node: Schema, value: Any) -> list[Any]:
    """Return other values that the type takes."""
    if "enum" in node:
        return [text for text in node["enum"] if text != value]
    if node.get("type") == "integer":  # a bound of latency is rounded to a bucket of the histogram
        return [_other(node, value), node["minimum"], node["maximum"]]
    return [_other(node, value)]


def _other(node: Schema, value: Any) -> Any:
    by_type: dict[str, Callable[[], Any]] = {
        "boolean": lambda: not value,
        "integer": lambda: node["minimum"] if value is None else _near(node, value),
        "number": lambda: (node["minimum"] + value) / 2,
        "array": lambda: [] if value and "minItems" not in node else _items(node, value),
        "object": lambda: {} if value else {"a": "b"},
        "string": lambda: _text(node, value),
    }
    return by_type[node.get("type", "string")]()


def _near(node: Schema, value: int) -> int:
    return value + 1 if value < node["maximum"] else value - 1


def _items(node: Schema, value: Any) -> Any:
    if value and isinstance(value[0], dict):
        return [*value, *value]
    if value:
        return [_other(node["items"], item) for item in value]
    inner = node["items"]
    if "enum" in inner:
        return inner["enum"][:1]
    if inner["type"] == "object":
        return [{"name": "A", "value": "b", "podLabels": {"a": "b"}}]
    return [inner["minimum"]] if inner["type"] == "integer" else [_text(inner, None)]


def _text(node: Schema, value: Any) -> str:
    pattern = node.get("pattern", "")
    if "sha256" in pattern:
        return "registry.example/orders:2"
    if "https?" in pattern:
        return "http://other:1234"
    if "Ki|" in pattern:
        return "3"
    if "/[0-9]{1,3}" in pattern:
        return "192.0.2.0/24"
    return f"{value or 'x'}2"


def _get(spec: Any, path: list[str]) -> Any:
    for name in path:
        if not isinstance(spec, dict) or spec.get(name) is None:
            return None
        spec = spec[name]
    return spec


def _set(spec: Any, path: list[str], value: Any) -> Any:
    name, *names = path
    return spec | {name: _set(spec[name], names, value) if names else value}


@pytest.mark.parametrize("path", sorted(LEAVES.keys() - BEHAVIOUR.keys()))
def test_a_changed_field_changes_what_is_made(make: Any, path: str) -> None:
    names = path.removeprefix(".").split(".")
    for base in BASES.values():
        spec = msgspec.to_builtins(make("full", **base).spec)
        if len(names) > 1 and _get(spec, names[:-1]) is None:
            continue
        for other in _others(LEAVES[path], _get(spec, names)):
            if _products(_set(spec, names, other)) != _products(spec):
                return
    pytest.fail(f"spec{path} has no effect")
