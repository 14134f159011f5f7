"""Every setting of the operator: a variable with a type, a unit, a default and a reason."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from orderservice_operator.cluster.client import SILENCE_S
from orderservice_operator.errors import OperatorError

PREFIX = "OPERATOR_"
ListenPort = Annotated[int, Meta(ge=0, le=65535)]
PositiveSeconds = Annotated[float, Meta(gt=0, le=86_400)]


class Settings(msgspec.Struct, frozen=True):
    """The settings, read once in `main`. A field `x` is read from `OPERATOR_X`."""

    namespace: Annotated[
        str,
        Meta(
            pattern=r"^[a-z0-9-]*(,[a-z0-9-]+)*$",
            description="Look only at this namespace, or at several, by comma; empty: at all.",
        ),
    ] = ""
    admin_host: Annotated[
        str, Meta(description="Address of probes, metrics and the external metrics API.")
    ] = "0.0.0.0"  # noqa: S104 probes come from the node
    admin_port: Annotated[ListenPort, Meta(description="Port of probes and metrics.")] = 8085
    external_metrics_service: Annotated[
        str,
        Meta(
            pattern=r"^[a-z0-9-]+/[a-z0-9-]+(:[0-9]{1,5})?$",
            description="`namespace/name` or `namespace/name:port` (443) of the Service in front "
            "of the replicas, where the API server asks for the depth of queues; its certificate "
            "is in the Secret `<name>-tls` beside it; empty: provider Builtin is off.",
        ),
    ] = ""
    external_metrics_port: Annotated[
        ListenPort,
        Meta(description="Port of the external metrics API (TLS): what that Service targets."),
    ] = 8443
    workers: Annotated[
        Annotated[int, Meta(ge=1, le=64)], Meta(description="Resources looked at at once.")
    ] = 8
    upgrades_at_once: Annotated[
        Annotated[int, Meta(ge=1, le=1000)],
        Meta(
            description="Resources whose pods are replaced at once when this operator makes other "
            "ones than the version before it; the next follows when all pods of one are ready."
        ),
    ] = 1
    resync_s: Annotated[
        PositiveSeconds,
        Meta(description="Look at every resource this often, whatever the watches say."),
    ] = 600
    topology_s: Annotated[
        PositiveSeconds,
        Meta(description="Look at every broker this often: drift there raises no event."),
    ] = 30
    secrets_s: Annotated[
        PositiveSeconds,
        Meta(
            description="Read the Secrets that pods use this often; when one changes, they are "
            "replaced. More than 20 take as much longer: by default less than one a second is "
            "read, however many there are."
        ),
    ] = 30
    secrets_watch: Annotated[
        bool,
        Meta(
            description="Watch the metadata of Secrets as well, so that one that changes is read "
            "within a second; needs the right to watch Secrets, which is the right to read all."
        ),
    ] = False
    discovery_s: Annotated[
        PositiveSeconds,
        Meta(
            description="Look this often for what came or went: KEDA, monitors; and, every 30 s at "
            "the least, who serves external metrics."
        ),
    ] = 120
    watch_silence_s: Annotated[
        PositiveSeconds,
        Meta(
            description="A watch that says nothing for this long is dead (the API server sends a "
            "bookmark each minute): list anew. Until that has worked, the operator is not ready."
        ),
    ] = SILENCE_S
    finalizer_timeout_s: Annotated[
        PositiveSeconds,
        Meta(description="Hold up a deletion no longer than this for a broker that is away."),
    ] = 110
    lease: Annotated[
        str,
        Meta(
            description="`namespace/name` of the Lease that says which replica works; empty: one "
            "replica runs and needs none."
        ),
    ] = ""
    owner: Annotated[
        str,
        Meta(
            pattern=r"^[a-z0-9.:-]*$",
            description="The operator's ClusterRole: with it go the Lease, the certificate and the "
            "APIService that the operator makes for itself; empty: they stay.",
        ),
    ] = ""
    account: Annotated[
        str,
        Meta(
            pattern=r"^[a-z0-9-]+/[a-z0-9.-]+$",
            description="`namespace/name` of the operator's ServiceAccount: an OrderService whose "
            "pods would run as it is refused; empty: it is not known, and none is.",
        ),
    ] = ""
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severe level logged.")
    ] = "info"


def namespaces(settings: Settings) -> tuple[str, ...]:
    """Return the namespaces in scope; none means all."""
    return tuple(dict.fromkeys(filter(None, settings.namespace.split(","))))


def load(environ: Mapping[str, str]) -> Settings:
    """Read the settings. Raises OperatorError naming what is wrong."""
    values = {
        field: value
        for field in Settings.__struct_fields__
        if (value := environ.get(PREFIX + field.upper(), "").strip())
    }
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise OperatorError(f"{PREFIX}*: {error}") from error
