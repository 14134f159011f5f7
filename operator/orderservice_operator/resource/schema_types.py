"""What the structs of the custom resource are made of: rules, and scalars with their bounds."""

from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta


class Rule(msgspec.Struct, frozen=True):
    """A CEL rule: checked by the API server, so that a bad resource never gets in."""

    rule: str
    message: str


class Section(msgspec.Struct, frozen=True, rename="camel", omit_defaults=False):
    """An object of the resource. Fields unknown to this version are left to a newer one."""

    rules: ClassVar[tuple[Rule, ...]] = ()


Name = Annotated[
    str, Meta(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
]
SecretEntry = Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
Image = Annotated[str, Meta(min_length=1, max_length=512, pattern=r"^[^\s]+$")]
_PORT = r"[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5]"
HttpUrl = Annotated[
    str,
    Meta(max_length=512, pattern=rf"^https?://[A-Za-z0-9._-]+(:({_PORT}))?(/[^\s?#]*)?$"),
]
# As gateway.networking.k8s.io has it: a name, or `*.` and a name.
RouteHost = Annotated[
    str,
    Meta(min_length=1, max_length=253, pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"),
]
Cidr = Annotated[str, Meta(max_length=43, pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$")]
Port = Annotated[int, Meta(ge=1, le=65535)]
Replicas = Annotated[int, Meta(ge=0, le=1000)]
ScaledReplicas = Annotated[int, Meta(ge=1, le=1000)]
Count = Annotated[int, Meta(ge=1, le=100_000)]
Seconds = Annotated[int, Meta(ge=1, le=86_400)]
Percentage = Annotated[int, Meta(ge=1, le=100)]
Quantity = Annotated[
    str, Meta(max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")
]
LabelKey = Annotated[str, Meta(min_length=1, max_length=317)]
LabelValue = Annotated[
    str, Meta(max_length=63, pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
]
Labels = Annotated[dict[str, LabelValue], Meta(max_length=32)]
Annotations = Annotated[dict[str, Annotated[str, Meta(max_length=4096)]], Meta(max_length=32)]


class SecretKey(Section, frozen=True):
    """One entry of a Secret in the resource's namespace."""

    name: Annotated[Name, Meta(description="Name of the Secret.")]
    key: Annotated[SecretEntry, Meta(description="Entry of the Secret.")] = "url"


class SecretName(Section, frozen=True):
    """A Secret in the resource's namespace."""

    name: Annotated[Name, Meta(description="Name of the Secret.")]


class Amounts(Section, frozen=True):
    """Amounts of what a container uses."""

    cpu: Annotated[Quantity | None, Meta(description="CPUs, such as 500m.")] = None
    memory: Annotated[Quantity | None, Meta(description="Memory, such as 256Mi.")] = None


def _at_most(unit: str) -> Rule:
    least, limit = f"self.requests.{unit}", f"self.limits.{unit}"
    return Rule(
        f"!has({least}) || !has({limit}) || quantity({least}).compareTo(quantity({limit})) <= 0",
        f"requests.{unit} must not be greater than limits.{unit}",
    )


class Resources(Section, frozen=True):
    """What a container asks for and what it may use; unset: the operator's default."""

    rules: ClassVar = (_at_most("cpu"), _at_most("memory"))

    requests: Annotated[Amounts, Meta(description="Asked for when scheduled.")] = Amounts()
    limits: Annotated[Amounts, Meta(description="Never exceeded.")] = Amounts()
