"""The scaler of the worker, and the reason: decided from the resource and the cluster. Pure."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from orderservice_operator.children.context import QUEUE_METRIC, Context, MetricsApi
from orderservice_operator.children.kinds import SCALED_OBJECT
from orderservice_operator.resource.spec import OrderService
from orderservice_topology.topology import PROCESSING as QUEUE


class Choice(msgspec.Struct, frozen=True):
    """The scaler of the worker (`None`: not scaled), and the reason."""

    provider: Literal["KEDA", "External", "Builtin"] | None
    reason: str
    message: str


def choose(service: OrderService, context: Context) -> Choice:
    """Choose the worker's scaler; a provider in the spec is never replaced by another."""
    autoscaling = service.spec.worker.autoscaling
    if autoscaling is None:
        return Choice(None, "NotWanted", "the worker keeps its replicas")
    options = {"KEDA": _keda, "External": _external, "Builtin": _builtin}
    if autoscaling.provider != "Auto":
        return options[autoscaling.provider](service, context)
    options["KEDA"] = _keda_that_trusts
    return _first([option(service, context) for option in options.values()])


def needs_operator(service: OrderService, kinds: frozenset[str]) -> bool:
    """Return whether a resource would use the operator's external metrics if they were served."""
    managed = service.spec.mode == "Manage" and not service.metadata.deletion_timestamp
    own_api = MetricsApi("operator", can_serve=True)
    return managed and choose(service, Context(kinds, metrics=own_api)).provider == "Builtin"


def metric_labels(service: OrderService) -> dict[str, str]:
    """Return the labels of the metric of one resource; Prometheus allows the names too."""
    return {"orderservice": service.metadata.name, "queue": QUEUE}


def _first(choices: Sequence[Choice]) -> Choice:
    """Return the first usable scaler; its message also says why earlier ones were not usable."""
    messages: list[str] = []
    for choice in choices:
        if choice.provider:
            message = "; ".join([choice.message, *messages])
            return Choice(choice.provider, choice.reason, message)
        messages.append(choice.message)
    return Choice(None, "NoProvider", "; ".join(messages))


def _keda_that_trusts(service: OrderService, context: Context) -> Choice:
    """Choose KEDA only where it can verify the broker without being given the bundle.

    Its trigger takes a `ca` only together with `tls: enable`, which has to be in a Secret too.
    """
    choice = _keda(service, context)
    if choice.provider and _is_private(service):
        message = (
            "KEDA cannot use caBundleSecretRef: make KEDA's operator trust the authority, then "
            "set provider: KEDA"
        )
        return Choice(None, "NotTrusted", message)
    return choice


def _is_private(service: OrderService) -> bool:
    url = service.spec.messaging.management_url or ""
    return service.spec.ca_bundle_secret_ref is not None and url.startswith("https:")


def _keda(service: OrderService, context: Context) -> Choice:
    if SCALED_OBJECT not in context.kinds:
        return Choice(None, "NoKEDA", "KEDA is not installed")
    messaging = service.spec.messaging
    if messaging.management_url and messaging.management_secret_ref:
        message = "KEDA scales: it is installed"
        if _is_private(service):
            message += "; its operator must trust the authority of messaging.managementUrl"
        return Choice("KEDA", "KEDA", message)
    message = "KEDA needs messaging.managementUrl and managementSecretRef to count messages"
    return Choice(None, "NoManagementUser", message)


def _external(_service: OrderService, context: Context) -> Choice:
    metrics = context.metrics
    if metrics.held_by != "other":
        return Choice(None, "NoExternalMetrics", "no other server serves external metrics")
    if metrics.answers:
        return Choice("External", "External", f"the HPA asks {metrics.server}")
    message = f"{metrics.server} serves external metrics but has no {QUEUE_METRIC} for this"
    return Choice(None, "MetricNotAnswered", message)


def _builtin(service: OrderService, context: Context) -> Choice:
    if not context.metrics.can_serve:
        message = "the operator is not set up to serve metrics: OPERATOR_EXTERNAL_METRICS_SERVICE"
        return Choice(None, "NotSetUp", message)
    if context.metrics.held_by == "other":
        message = f"external metrics are served by {context.metrics.server}, which is left alone"
        return Choice(None, "HeldByOther", message)
    if service.spec.messaging.management_url is None:
        message = "the operator needs messaging.managementUrl to count messages"
        return Choice(None, "NoManagementUrl", message)
    return Choice("Builtin", "Builtin", "the HPA asks this operator")
