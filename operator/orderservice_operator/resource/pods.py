"""Fields that a resource adds to its pods, with the names and shapes of Kubernetes.

Types that Kubernetes changes with every version (volumes, containers, affinity) are passed on as
they are. The API server checks them when the Deployment is applied, and its answer is a condition.
"""

# ruff: noqa: RUF012  msgspec gives every instance its own copy of an empty default

from typing import Annotated, Any, ClassVar, Final, Literal

from msgspec import Meta

from orderservice_operator.resource.schema_types import (
    Annotations,
    LabelKey,
    Labels,
    Name,
    Rule,
    Section,
)

# Names and places that the operator takes itself.
OWN_VOLUMES: Final = ("tmp", "gateway-tmp", "gateway-tls", "ca-bundle")
CA_FOLDER: Final = "/etc/orders/ca"
TLS_FOLDER: Final = "/etc/orders/tls"
OWN_CONTAINERS: Final = ("api", "relay", "worker", "notifier", "gateway", "migrate", "reconcile")

# An object of Kubernetes that is passed on as it is.
Passed = dict[str, Any]


def _keyed(key: str, *, operator_keys: tuple[str, ...] = (), reserved: str = "") -> dict[str, Any]:
    """Return the schema of a list with a key, which must be none of `operator_keys`."""
    schema: dict[str, Any] = {
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": [key],
    }
    if operator_keys:
        names = ", ".join(f"'{name}'" for name in operator_keys)
        rule = Rule(f"self.all(item, !(item.{key} in [{names}]))", f"{reserved} of the operator")
        schema["x-kubernetes-validations"] = [{"rule": rule.rule, "message": rule.message}]
    return schema


_NAME_LENGTH: Final = 63
_NAMED: Final = {
    "properties": {
        "name": {
            "type": "string",
            "maxLength": _NAME_LENGTH,
            "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        }
    },
    "required": ["name"],
}
_Named = Annotated[Passed, Meta(extra_json_schema=_NAMED)]
Volumes = Annotated[
    list[_Named],
    Meta(
        max_length=32,
        extra_json_schema=_keyed(
            "name",
            operator_keys=OWN_VOLUMES,
            reserved="tmp, gateway-tmp, gateway-tls and ca-bundle are volumes",
        ),
    ),
]
Containers = Annotated[
    list[_Named],
    Meta(
        max_length=8,
        extra_json_schema=_keyed(
            "name", operator_keys=OWN_CONTAINERS, reserved="a container has this name, it is"
        ),
    ),
]


class LocalReference(Section, frozen=True):
    """An object in the resource's namespace."""

    name: Annotated[Name, Meta(description="Name of the Secret.")]


class EntrySource(Section, frozen=True):
    """An entry of a Secret or ConfigMap."""

    name: Annotated[Name, Meta(description="Name of the object.")]
    key: Annotated[
        Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")],
        Meta(description="Entry."),
    ]
    optional: Annotated[
        bool | None,
        Meta(description="Start the pod without the variable if the entry does not exist."),
    ] = None


class FieldSource(Section, frozen=True):
    """A field of the pod."""

    field_path: Annotated[
        Annotated[str, Meta(min_length=1, max_length=256)],
        Meta(description="Path of the field, such as `status.podIP`."),
    ]


class ResourceSource(Section, frozen=True):
    """An amount of a resource that the container requests or is limited to."""

    resource: Annotated[
        Annotated[str, Meta(min_length=1, max_length=64)],
        Meta(description="Name of the amount, such as `limits.memory`."),
    ]


class VariableSource(Section, frozen=True):
    """Where a variable's value comes from."""

    rules: ClassVar = (
        Rule(
            "[has(self.secretKeyRef), has(self.configMapKeyRef), has(self.fieldRef),"
            " has(self.resourceFieldRef)].filter(given, given).size() == 1",
            "give exactly one source",
            ".secretKeyRef",
        ),
    )

    secret_key_ref: Annotated[EntrySource | None, Meta(description="Entry of a Secret.")] = None
    config_map_key_ref: Annotated[EntrySource | None, Meta(description="Entry of a ConfigMap.")] = (
        None
    )
    field_ref: Annotated[FieldSource | None, Meta(description="Field of the pod.")] = None
    resource_field_ref: Annotated[
        ResourceSource | None, Meta(description="Resource amount of the container.")
    ] = None


class Variable(Section, frozen=True):
    """An environment variable; the operator's own win."""

    rules: ClassVar = (
        Rule(
            "has(self.value) != has(self.valueFrom)",
            "give value or valueFrom, and not both",
            ".value",
        ),
    )

    name: Annotated[
        Annotated[str, Meta(max_length=128, pattern=r"^[A-Z_][A-Z0-9_]*$")],
        Meta(description="Name."),
    ]
    value: Annotated[
        Annotated[str, Meta(max_length=4096)] | None, Meta(description="Value; it may be empty.")
    ] = None
    value_from: Annotated[VariableSource | None, Meta(description="Source of the value.")] = None


class VolumeMount(Section, frozen=True):
    """A volume in every container that the operator makes."""

    name: Annotated[
        Annotated[str, Meta(min_length=1, max_length=_NAME_LENGTH)],
        Meta(description="Name of the volume."),
    ]
    mount_path: Annotated[
        Annotated[str, Meta(min_length=1, max_length=512, pattern=r"^/[^:]*$")],
        Meta(description="Path in the container; not /tmp, which the operator mounts."),
    ]
    read_only: Annotated[bool | None, Meta(description="Mount without write access.")] = None
    sub_path: Annotated[
        Annotated[str, Meta(max_length=512)] | None, Meta(description="Part of the volume.")
    ] = None
    sub_path_expr: Annotated[
        Annotated[str, Meta(max_length=512)] | None,
        Meta(description="Part of the volume, with variables."),
    ] = None
    mount_propagation: Annotated[
        Literal["None", "HostToContainer", "Bidirectional"] | None,
        Meta(description="How mounts are propagated."),
    ] = None


class Toleration(Section, frozen=True):
    """A taint that the pods tolerate."""

    rules: ClassVar = (
        Rule(
            "has(self.operator) && self.operator == 'Exists' ? !has(self.value)"
            " : has(self.key) || !(has(self.value) || has(self.operator))",
            "operator Equal needs a key, operator Exists takes no value",
            ".operator",
        ),
        Rule(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "tolerationSeconds needs effect NoExecute",
            ".tolerationSeconds",
        ),
    )

    key: Annotated[LabelKey | None, Meta(description="Key of the taint.")] = None
    operator: Annotated[
        Literal["Exists", "Equal"] | None,
        Meta(description="How the value is compared; unset: Equal if there is a value."),
    ] = None
    value: Annotated[
        Annotated[
            str, Meta(max_length=63, pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
        ]
        | None,
        Meta(description="Value of the taint."),
    ] = None
    effect: Annotated[
        Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None,
        Meta(description="Effect of the taint; unset: all effects."),
    ] = None
    toleration_seconds: Annotated[
        Annotated[int, Meta(ge=0, le=86_400)] | None,
        Meta(description="Time that a pod stays on a node with the taint; unset: for ever."),
    ] = None


class PodTemplate(Section, frozen=True):
    """Fields added to pods; a process's own template is merged over spec.podTemplate."""

    rules: ClassVar = (
        Rule(
            "self.volumeMounts.all(mount, mount.mountPath != '/tmp'"
            f" && !mount.mountPath.startsWith('{CA_FOLDER}')"
            f" && !mount.mountPath.startsWith('{TLS_FOLDER}'))",
            f"volumeMounts: /tmp, {CA_FOLDER} and {TLS_FOLDER} belong to the operator",
            ".volumeMounts",
        ),
    )

    labels: Annotated[
        Labels, Meta(description="Further labels. The operator's own take precedence.")
    ] = {}
    annotations: Annotated[Annotations, Meta(description="Further annotations.")] = {}
    node_selector: Annotated[Labels, Meta(description="Labels of nodes to run on.")] = {}
    affinity: Annotated[
        Passed | None, Meta(description="Affinity as in a PodSpec, passed on unchanged.")
    ] = None
    tolerations: Annotated[
        Annotated[list[Toleration], Meta(max_length=16)], Meta(description="Tolerated taints.")
    ] = []
    topology_spread_constraints: Annotated[
        Annotated[list[Passed], Meta(max_length=8)],
        Meta(
            description="Constraints instead of the operator's, which spread pods over zones "
            "and nodes where possible. Without labelSelector they select the pods "
            "of the process."
        ),
    ] = []
    priority_class_name: Annotated[Name | None, Meta(description="PriorityClass.")] = None
    runtime_class_name: Annotated[Name | None, Meta(description="RuntimeClass.")] = None
    scheduler_name: Annotated[Name | None, Meta(description="Scheduler.")] = None
    image_pull_secrets: Annotated[
        Annotated[list[LocalReference], Meta(max_length=8, extra_json_schema=_keyed("name"))],
        Meta(description="Secrets with which the image is pulled."),
    ] = []
    image_pull_policy: Annotated[
        Literal["IfNotPresent", "Always", "Never"] | None,
        Meta(description="When the image is pulled; unset: IfNotPresent."),
    ] = None
    service_account_name: Annotated[
        Name | None,
        Meta(description="Existing ServiceAccount; unset: the operator creates one."),
    ] = None
    automount_service_account_token: Annotated[
        bool | None,
        Meta(description="Mount the account's token, for a container of yours; unset: false."),
    ] = None
    env: Annotated[
        Annotated[list[Variable], Meta(max_length=64, extra_json_schema=_keyed("name"))],
        Meta(
            description="Further environment variables of every container that the operator "
            "defines."
        ),
    ] = []
    volumes: Annotated[Volumes, Meta(description="Volumes as in a PodSpec.")] = []
    volume_mounts: Annotated[
        Annotated[list[VolumeMount], Meta(max_length=32, extra_json_schema=_keyed("mountPath"))],
        Meta(description="Mounts in every container that the operator defines."),
    ] = []
    security_context: Annotated[
        Passed | None,
        Meta(
            description="Security context of the pod. If set, even to {}, only the user, group "
            "and fsGroup in it apply; OpenShift chooses missing ones. runAsNonRoot "
            "and seccompProfile keep the operator's values unless set here."
        ),
    ] = None
    container_security_context: Annotated[
        Passed | None,
        Meta(
            description="Merged over the security context of every container that the operator "
            "defines."
        ),
    ] = None
    init_containers: Annotated[
        Containers,
        Meta(
            description="Init containers as in a PodSpec, also for migration and "
            "reconciliation. With restartPolicy Always they run beside the other "
            "containers."
        ),
    ] = []
    containers: Annotated[
        Containers,
        Meta(
            description="Further containers as in a PodSpec. Pods of migration and "
            "reconciliation get only those of their own template, because a Job "
            "ends when all its containers have ended."
        ),
    ] = []
    host_aliases: Annotated[
        Annotated[list[Passed], Meta(max_length=16)],
        Meta(description="Lines of /etc/hosts, as in a PodSpec."),
    ] = []
    dns_policy: Annotated[
        Literal["ClusterFirst", "Default", "None"] | None, Meta(description="DNS policy.")
    ] = None
    dns_config: Annotated[
        Passed | None, Meta(description="DNS configuration, as in a PodSpec.")
    ] = None
