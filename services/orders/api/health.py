"""`/health` on the public port: what the admin port answers, within the same second."""

from typing import Annotated, Final, Literal

import msgspec
from falcon import Request, Response
from msgspec import UNSET, Meta, UnsetType

from orders import probes
from orders.api.resource import Operation, ResponseDoc
from orders.probes import Checks

StatusWord = Literal["Healthy", "Degraded", "Unhealthy"]


class DependencyHealth(msgspec.Struct, rename="camel", frozen=True):
    """How one dependency does."""

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
            summary="Tell whether orders can be taken",
            description="For people and load balancers; Kubernetes asks the admin port.",
            answers={
                200: ResponseDoc(description="Healthy, or degraded.", body=HealthReport),
                503: ResponseDoc(description="The primary database is out.", body=HealthReport),
            },
        )
    }

    def __init__(self, checks: Checks) -> None:
        self._checks = checks

    def on_get(self, _req: Request, resp: Response) -> None:
        """Answer the results of the checks; requests share them for a second."""
        status, report = probes.health(self._checks)
        resp.status = status
        resp.data = msgspec.json.encode(report)
        resp.set_header("Cache-Control", "no-store")

    on_head = on_get
