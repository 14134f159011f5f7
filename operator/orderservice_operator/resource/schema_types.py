"""Building blocks of the custom resource's structs: rules, and scalars with bounds."""

from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta


class Rule(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A CEL rule that the API server checks, so that it refuses an invalid resource.

    `field_path` is the invalid field, below the object that has the rule.
    """

    rule: str
    message: str
    field_path: str = ""


class Section(msgspec.Struct, frozen=True, rename="camel", omit_defaults=False):
    """An object of the resource. It ignores unknown fields: they belong to a newer version."""

    rules: ClassVar[tuple[Rule, ...]] = ()


def _checked(rule: str, message: str) -> dict[str, object]:
    """Return the schema of a scalar or map that a CEL rule checks."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message}]}


_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"  # of a DNS name
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
Name = Annotated[str, Meta(min_length=1, max_length=253, pattern=f"^{_SUBDOMAIN}$")]
Host = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=253,
        pattern=rf"^(\*\.)?{_SUBDOMAIN}$",
        extra_json_schema=_checked("!isIP(self)", "a host is a name, not an address"),
    ),
]
SecretEntry = Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
# As OCI's distribution specification has it: host, path in lower case, tag, digest.
_HOST = r"[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]+)?"
_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_DIGEST = "sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}"
Image = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=512,
        pattern=rf"^({_HOST}/)?{_PART}(/{_PART})*(:[A-Za-z0-9_][-.A-Za-z0-9_]{{0,127}})?(@({_DIGEST}))?$",
    ),
]
_PORT = r"[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5]"
HttpUrl = Annotated[
    str,
    Meta(max_length=512, pattern=rf"^https?://[A-Za-z0-9._-]+(:({_PORT}))?(/[^\s?#]*)?$"),
]
# As gateway.networking.k8s.io has it: a name, or `*.` and a name.
RouteHost = Host
Cidr = Annotated[
    str,
    Meta(
        max_length=43,
        pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$",
        extra_json_schema=_checked("isCIDR(self)", "not a network such as 10.0.0.0/8"),
    ),
]
Port = Annotated[int, Meta(ge=1, le=65535)]
Replicas = Annotated[int, Meta(ge=0, le=1000)]
ScaledReplicas = Annotated[int, Meta(ge=1, le=1000)]
Count = Annotated[int, Meta(ge=1, le=100_000)]
Seconds = Annotated[int, Meta(ge=1, le=86_400)]
Percentage = Annotated[int, Meta(ge=1, le=100)]
# A number without a unit may be an integer, too, as in a PodSpec.
Quantity = (
    Annotated[str, Meta(max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")]
    | int
)
_KEY = rf"({_SUBDOMAIN}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?"
LabelKey = Annotated[str, Meta(min_length=1, max_length=317, pattern=f"^{_KEY}$")]
_KEYS = _checked(
    f"self.all(key, key.matches('^{_KEY}$'))".replace("\\", "\\\\"),
    "a key is a name of at most 63 characters, with or without a domain and / before it",
)
LabelValue = Annotated[
    str, Meta(max_length=63, pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
]
Labels = Annotated[dict[str, LabelValue], Meta(max_length=32, extra_json_schema=_KEYS)]
Annotations = Annotated[
    dict[str, Annotated[str, Meta(max_length=4096)]],
    Meta(max_length=32, extra_json_schema=_KEYS),
]


class SecretKey(Section, frozen=True):
    """One entry of a Secret in the resource's namespace."""

    name: Annotated[Name, Meta(description="Name of the Secret.")]
    key: Annotated[SecretEntry, Meta(description="Entry of the Secret.")] = "url"


class SecretName(Section, frozen=True):
    """A Secret in the resource's namespace."""

    name: Annotated[Name, Meta(description="Name of the Secret.")]


class ExtraMetadata(Section, frozen=True):
    """Labels and annotations for an object."""

    labels: Annotated[Labels, Meta(description="Labels. The operator's own take precedence.")] = {}
    annotations: Annotated[
        Annotations, Meta(description="Annotations. The operator's own take precedence.")
    ] = {}


class Amounts(Section, frozen=True):
    """Amounts of CPU and memory."""

    cpu: Annotated[Quantity | None, Meta(description="CPUs, such as 500m.")] = None
    memory: Annotated[Quantity | None, Meta(description="Memory, such as 256Mi.")] = None
    ephemeral_storage: Annotated[
        Quantity | None, Meta(description="Disk for logs and emptyDirs, such as 1Gi.")
    ] = msgspec.field(default=None, name="ephemeral-storage")


def _at_most(unit: str) -> Rule:
    field = unit.replace("-", "__dash__")
    least, limit = f"self.requests.{field}", f"self.limits.{field}"
    sizes = f"quantity(string({least})).compareTo(quantity(string({limit})))"
    return Rule(
        f"!has({least}) || !has({limit}) || {sizes} <= 0",
        f"requests.{unit} must not be greater than limits.{unit}",
        f".requests.{unit}" if field == unit else f".requests['{unit}']",
    )


class Resources(Section, frozen=True):
    """What a container requests and its limits; unset: the operator's default."""

    rules: ClassVar = (_at_most("cpu"), _at_most("memory"), _at_most("ephemeral-storage"))

    requests: Annotated[
        Amounts, Meta(description="Amounts that are reserved when a pod is scheduled.")
    ] = Amounts()
    limits: Annotated[Amounts, Meta(description="Most that a container may use.")] = Amounts()
