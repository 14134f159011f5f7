"""ControllerRevision: the spec that a service runs, stored once it is known to be good."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from orderservice_operator.children import processes
from orderservice_operator.children.manifest import Manifest, child, digest, inherited
from orderservice_operator.children.pods import pod_template
from orderservice_operator.resource.spec import OrderService, Spec
from orderservice_operator.resource.workloads import Api

API_VERSION: Final = "apps/v1"
KIND: Final = "ControllerRevision"

# Not rolled back: the number of pods, how they are reached and watched, the topology, and how the
# operator works. Everything else is rolled back together.
_STAYS_WHOLE: Final = frozenset(
    {
        "mode",
        "paused",
        "slo",
        "migrations",
        "reconciliation",
        "rollout",
        "networkPolicy",
        "inheritedMetadata",
        "serviceAccountTemplate",
    }
)
_CONTROL: Final = frozenset({"mode", "paused"})
_SIZE: Final = frozenset({"replicas", "autoscaling", "podDisruptionBudget"})
_STAYS: Final[Mapping[str, frozenset[str]]] = {
    "api": _SIZE | {"ingress", "httpRoute", "service"},
    "worker": _SIZE,
    "relay": _SIZE,
    "notifier": _SIZE,
    "database": frozenset({"maxConnections"}),
    "messaging": frozenset(
        {
            "managementUrl",
            "managementSecretRef",
            "provision",
            "deliveryLimit",
            "retryDelaysSeconds",
            "maxLength",
            "deletionPolicy",
        }
    ),
    "observability": frozenset({"serviceMonitor", "prometheusRule", "dashboards"}),
}


def revision_name(service: OrderService) -> str:
    """Return the name of the spec's revision; equal pods have equal names.

    The hash is of the pod templates, which name the ConfigMaps of the settings, and not of the
    spec. So a newer operator that knows more fields does not create another revision.
    """
    templates = [pod_template(service, process) for process in processes.ALL]
    return f"{service.metadata.name}-{digest(templates)}"


def controller_revision(service: OrderService, number: int) -> Manifest:
    """Return the stored part of the spec, as the `number`-th good revision."""
    manifest = child(service, API_VERSION, KIND, name=revision_name(service))
    data = {"revision": number, "data": {"spec": _going_back(_fields(service))}}
    return inherited(service, manifest | data)


def with_spec_of(service: OrderService, data: Manifest) -> OrderService:
    """Return the resource with the spec that a revision stores.

    It is closed if a roll-back would allow requests without a token: `auth` is rolled back, an
    Ingress is not. Raises msgspec.ValidationError for data that this version cannot read.
    """
    stored_spec: Manifest = data["spec"]
    kept_fields = _staying(_fields(service))
    sections = [name for name in kept_fields if name not in _STAYS_WHOLE]
    fields = (
        stored_spec
        | kept_fields
        | {name: stored_spec.get(name, {}) | kept_fields[name] for name in sections}
    )
    spec = msgspec.convert(fields, type(service.spec))
    if _is_open(spec) and not _is_open(service.spec):
        spec = msgspec.structs.replace(spec, api=_closed(spec.api))
    return msgspec.structs.replace(service, spec=spec)


def _is_open(spec: Spec) -> bool:
    """Return whether the api is exposed without tokens and without `exposeWithoutAuth`."""
    outside = spec.api.ingress or spec.api.http_route or spec.api.service.type != "ClusterIP"
    return bool(outside) and spec.auth.mode == "off" and not spec.auth.expose_without_auth


def _closed(api: Api) -> Api:
    inside = msgspec.structs.replace(
        api.service,
        type="ClusterIP",
        load_balancer_class=None,
        load_balancer_source_ranges=[],
        external_traffic_policy=None,
    )
    return msgspec.structs.replace(api, ingress=None, http_route=None, service=inside)


def attempt(service: OrderService) -> str:
    """Return a digest of what the spec runs, regardless of size and pause.

    Members with their default are omitted, so that a newer operator with more members gets the same
    digest.
    """
    fields = _without_defaults(service.spec)
    sized = {name: _without_size(value) for name, value in fields.items() if name not in _CONTROL}
    return digest({name: value for name, value in sized.items() if value not in ({}, None)})


def _without_size(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: member for name, member in value.items() if name not in _SIZE}


def _without_defaults(section: msgspec.Struct) -> Manifest:
    fields: Manifest = {}
    for field in msgspec.structs.fields(section):
        value = getattr(section, field.name)
        default = field.default
        if default is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if isinstance(value, msgspec.Struct):
            value, default = _without_defaults(value), {}
        if value != default:
            fields[field.encode_name] = msgspec.to_builtins(value)
    return fields


def _fields(service: OrderService) -> Manifest:
    fields: Manifest = _without_none(msgspec.to_builtins(service.spec))
    return fields


def _going_back(fields: Manifest) -> Manifest:
    return {
        name: _only(value, section_name=name, stays=False)
        for name, value in fields.items()
        if name not in _STAYS_WHOLE
    }


def _staying(fields: Manifest) -> Manifest:
    return {
        name: value if name in _STAYS_WHOLE else _only(value, section_name=name, stays=True)
        for name, value in fields.items()
        if name in _STAYS_WHOLE or name in _STAYS
    }


def _only(section: Any, *, section_name: str, stays: bool) -> Any:
    if section_name not in _STAYS:
        return section
    return {
        name: value for name, value in section.items() if (name in _STAYS[section_name]) is stays
    }


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(item) for name, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value
