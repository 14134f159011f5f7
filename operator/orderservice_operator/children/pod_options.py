"""Additions to the pods of one process: spec.podTemplate, overridden by the process's own.

Maps are merged by key. Lists whose items have a key are merged by that key: an item replaces the
one with the same key. Any other list, and any scalar, is replaced.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from orderservice_operator.children.manifest import Manifest, selector
from orderservice_operator.resource.pods import PodTemplate, Toleration
from orderservice_operator.resource.spec import OrderService

_Key = Callable[[Any], str]
_KEYS: Final[Mapping[str, _Key]] = {
    "image_pull_secrets": lambda item: str(item.name),
    "env": lambda item: str(item.name),
    "volumes": lambda item: str(item["name"]),
    "volume_mounts": lambda item: str(item.mount_path),
    "init_containers": lambda item: str(item["name"]),
    "containers": lambda item: str(item["name"]),
}


COMPONENTS: Final = ("api", "relay", "worker", "notifier", "migrate", "reconcile")


def accounts(service: OrderService) -> frozenset[str]:
    """Return the names of the ServiceAccounts that pods run as."""
    return frozenset(
        of_process(service, component).service_account_name or service.metadata.name
        for component in COMPONENTS
    )


def of_process(service: OrderService, component: str) -> PodTemplate:
    """Return the options of a process, of the migration or of reconciliation."""
    spec = service.spec
    template = {
        "api": spec.api.pod_template,
        "relay": spec.relay.pod_template,
        "worker": spec.worker.pod_template,
        "notifier": spec.notifier.pod_template,
        "migrate": spec.migrations.pod_template,
        "reconcile": spec.reconciliation.pod_template,
    }[component]
    base = spec.pod_template
    if component in {"migrate", "reconcile"}:  # a Job ends when all its containers have
        base = msgspec.structs.replace(base, containers=[])
    return merged(base, template)


def are_passed_on(service: OrderService) -> bool:
    """Return whether pods have parts that only the API server can check."""
    spec = service.spec
    sections = (spec.api, spec.relay, spec.worker, spec.notifier)
    templates = [spec.pod_template, *(section.pod_template for section in sections)]
    return any(template != PodTemplate() for template in templates)


def merged(base: PodTemplate, override: PodTemplate) -> PodTemplate:
    """Return one template merged over another."""
    names = PodTemplate.__struct_fields__
    return PodTemplate(
        **{name: _merged(name, getattr(base, name), getattr(override, name)) for name in names}
    )


def _merged(name: str, base: Any, override: Any) -> Any:
    if override is None or base is None:
        return base if override is None else override
    if isinstance(base, dict):
        return base | override
    if key := _KEYS.get(name):
        items = {key(item): item for item in base} | {key(item): item for item in override}
        return list(items.values())
    return override or base


def pod_members(service: OrderService, component: str) -> Manifest:
    """Return the members of a PodSpec that the resource sets, without containers."""
    options = of_process(service, component)
    members: Manifest = {
        "nodeSelector": options.node_selector,
        "tolerations": [_toleration(toleration) for toleration in options.tolerations],
        "priorityClassName": options.priority_class_name,
        "imagePullSecrets": plain(options.image_pull_secrets),
        "affinity": options.affinity,
        "runtimeClassName": options.runtime_class_name,
        "schedulerName": options.scheduler_name,
        "hostAliases": options.host_aliases,
        "dnsPolicy": options.dns_policy,
        "dnsConfig": options.dns_config,
        "initContainers": options.init_containers,
        "serviceAccountName": options.service_account_name,
        "automountServiceAccountToken": options.automount_service_account_token,
    }
    if options.topology_spread_constraints:
        members["topologySpreadConstraints"] = [
            _over_the_process(service, component, constraint)
            for constraint in options.topology_spread_constraints
        ]
    return {name: value for name, value in members.items() if value or value is False}


def _toleration(toleration: Toleration) -> Manifest:
    operator = toleration.operator or ("Exists" if toleration.value is None else "Equal")
    fields: Manifest = plain(toleration)
    return fields | {"operator": operator}


def _over_the_process(service: OrderService, component: str, constraint: Manifest) -> Manifest:
    if "labelSelector" in constraint:
        return constraint
    defaults = {
        "labelSelector": {"matchLabels": selector(service, component)},
        "matchLabelKeys": ["pod-template-hash"],
    }
    return defaults | constraint


def mounts(options: PodTemplate) -> list[Manifest]:
    """Return the mounts that the operator's own containers get."""
    volume_mounts: list[Manifest] = plain(options.volume_mounts)
    return volume_mounts


def plain(value: Any) -> Any:
    """Return structs as in manifests: without unset members."""
    return without_none(msgspec.to_builtins(value))


def without_none(value: Any) -> Any:
    """Return a value without the members that are None, on every level."""
    if isinstance(value, dict):
        return {name: without_none(item) for name, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_none(item) for item in value]
    return value
