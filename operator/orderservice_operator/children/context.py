"""The facts about the cluster that the builders of children need."""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from orderservice_operator.resource.spec import OrderService

METRICS_GROUP: Final = "external.metrics.k8s.io"
METRICS_VERSION: Final = "v1beta1"
QUEUE_METRIC: Final = "orderservice_queue_messages"


class MetricsApi(msgspec.Struct, frozen=True):
    """The server of external metrics in this cluster; there can be only one.

    `server` is its name for messages. `answers`: it has the metric of the resource in question.
    `can_serve`: this operator is set up to serve them.
    """

    held_by: Literal["nobody", "operator", "other"] = "nobody"
    server: str = ""
    answers: bool = False
    can_serve: bool = False


class Context(msgspec.Struct, frozen=True):
    """`kinds`: the optional kinds that this cluster has; `workers`: how many are wanted now.

    `secrets`: a digest of the Secrets of each process, if they are known. `before`: the resource as
    old pods may still run it until all are replaced. `dashboards`: this resource is the oldest with
    dashboards. They show all resources, and a second set of the same names would replace the first.
    """

    kinds: frozenset[str] = frozenset()
    migrated: bool = True
    secrets: Mapping[str, str] = {}
    before: OrderService | None = None
    metrics: MetricsApi = MetricsApi()
    workers: int | None = None
    dashboards: bool = True
