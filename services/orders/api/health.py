"""`/health` on the public port: the admin port's answer, cached for a second."""

from typing import Annotated, Final, Literal

import msgspec
from falcon import Request, Response
from msgspec import UNSET, Meta, UnsetType

from orders import probes
from orders.api.resource import Operation, ResponseDoc
from orders.probes import Checks

StatusWord = Literal["Healthy", "Degraded", "Unhealthy"]


class DependencyHealth(msgspec.Struct, rename="camel", frozen=True):
    """The health of one dependency."""

    status: StatusWord
    duration_ms: float
    error: str | UnsetType = UNSET


class HealthReport(msgspec.Struct, frozen=True):
    """Unhealthy only without the primary database: nothing else stops an order."""

    status: StatusWord
    checks: Annotated[dict[str, DependencyHealth], Meta(description="By dependency.")]


class Health:
    """Health of the service at `/health`."""

    operations: Final = {
        "GET": Operation(
            id="health",
            summary="Show whether the service can accept orders",
            description="For people and load balancers; Kubernetes uses the admin port.",
            answers={
                200: ResponseDoc(description="Healthy, or degraded.", body=HealthReport),
                503: ResponseDoc(
                    description="The primary database is unavailable.", body=HealthReport
                ),
            },
        )
    }

    def __init__(self, checks: Checks) -> None:
        self._checks = checks

    def on_get(self, _req: Request, resp: Response) -> None:
        """Answer with the checks' results, which are cached for a second."""
        status, report = probes.health(self._checks)
        resp.status = status
        resp.data = msgspec.json.encode(report)
        resp.set_header("Cache-Control", "no-store")

    on_head = on_get
