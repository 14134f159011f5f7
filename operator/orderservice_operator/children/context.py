"""The facts about the cluster that the builders of children need."""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from orderservice_operator.resource.spec import OrderService

METRICS_GROUP: Final = "external.metrics.k8s.io"
METRICS_VERSION: Final = "v1beta1"
QUEUE_METRIC: Final = "orderservice_queue_messages"


class MetricsApi(msgspec.Struct, frozen=True):
    """Who serves external metrics in this cluster: only one server can.

    `server` names it for people. `answers`: it has the metric of the resource in question.
    `can_serve`: this operator is set up to serve them.
    """

    held_by: Literal["nobody", "operator", "other"] = "nobody"
    server: str = ""
    answers: bool = False
    can_serve: bool = False


class Context(msgspec.Struct, frozen=True):
    """`kinds`: the optional kinds that this cluster has; `workers`: how many are wanted now.

    `secrets`: of each process whose Secrets are known, a digest of what is in them. `before`: the
    resource with what pods may still run until all are replaced. `dashboards`: no older resource
    has them; they show all resources, and a second set of the same names would replace the first.
    """

    kinds: frozenset[str] = frozenset()
    migrated: bool = True
    secrets: Mapping[str, str] = {}
    before: OrderService | None = None
    metrics: MetricsApi = MetricsApi()
    workers: int | None = None
    dashboards: bool = True
