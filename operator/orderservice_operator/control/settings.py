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
            description="Namespaces to manage, comma-separated; empty: all.",
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
            description="Service through which the API server reads the depth of queues:"
            " `namespace/name` or `namespace/name:port` (443). Its certificate is in the Secret"
            " `<name>-tls`. Empty: provider Builtin is off.",
        ),
    ] = ""
    external_metrics_port: Annotated[
        ListenPort,
        Meta(description="Port of the external metrics API (TLS), which that Service targets."),
    ] = 8443
    workers: Annotated[
        Annotated[int, Meta(ge=1, le=64)],
        Meta(description="Resources reconciled at the same time."),
    ] = 8
    upgrades_at_once: Annotated[
        Annotated[int, Meta(ge=1, le=1000)],
        Meta(
            description="Resources whose pods an upgrade of the operator replaces at the same time."
            " The next one follows when all pods of one are ready."
        ),
    ] = 1
    resync_s: Annotated[
        PositiveSeconds,
        Meta(description="How often every resource is reconciled without an event."),
    ] = 600
    topology_s: Annotated[
        PositiveSeconds,
        Meta(description="How often every broker is checked: drift there raises no event."),
    ] = 30
    secrets_s: Annotated[
        PositiveSeconds,
        Meta(
            description="How often the Secrets that pods use are read; if one changes, the pods are"
            " replaced. With more than 20 Secrets it takes proportionally longer: by default less"
            " than one is read per second."
        ),
    ] = 30
    secrets_watch: Annotated[
        bool,
        Meta(
            description="Also watch the metadata of Secrets, to see a change within a second. It"
            " needs the right to watch Secrets, which includes reading all of them."
        ),
    ] = False
    discovery_s: Annotated[
        PositiveSeconds,
        Meta(
            description="How often the API server is asked which kinds it has (KEDA, monitors). The"
            " server of external metrics is checked at least every 30 s."
        ),
    ] = 120
    watch_silence_s: Annotated[
        PositiveSeconds,
        Meta(
            description="A watch that is silent for this long is dead (the API server sends a"
            " bookmark every minute). The operator lists again, and is not ready until that"
            " succeeds."
        ),
    ] = SILENCE_S
    finalizer_timeout_s: Annotated[
        PositiveSeconds,
        Meta(description="Longest time that an unreachable broker may delay a deletion."),
    ] = 110
    lease: Annotated[
        str,
        Meta(
            description="`namespace/name` of the Lease for leader election; empty: a single replica"
            " runs without one."
        ),
    ] = ""
    owner: Annotated[
        str,
        Meta(
            pattern=r"^[a-z0-9.:-]*$",
            description="The operator's ClusterRole, as owner of the Lease, the certificate and the"
            " APIService that the operator creates. They are deleted with it. Empty: they stay.",
        ),
    ] = ""
    account: Annotated[
        str,
        Meta(
            pattern=r"^[a-z0-9-]+/[a-z0-9.-]+$",
            description="`namespace/name` of the operator's ServiceAccount. An OrderService whose"
            " pods would run as it is refused. Empty: none is refused.",
        ),
    ] = ""
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="Lowest level that is logged."),
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
