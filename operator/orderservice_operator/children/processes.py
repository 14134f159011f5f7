"""The four processes as data: what differs between them, and nothing about Kubernetes."""

from typing import Final

import msgspec

from orderservice_operator.resource.schema_types import Amounts, Resources
from orderservice_operator.resource.spec import OrderService
from orderservice_operator.resource.workloads import Api, Notifier, Relay, Worker

# Only the gateway in the same pod may connect to the api, so the api listens on the loopback.
GATEWAY_PORT: Final = 8080
GATEWAY_TLS_PORT: Final = 8443
GATEWAY_ADMIN_PORT: Final = 8086
API_PORT: Final = 8000
# Endpoints and load balancers learn late that a pod ends, so it still gets requests. The gateway
# serves for GATEWAY_PRE_STOP_S more and then drains. The api ends after the gateway has drained.
GATEWAY_PRE_STOP_S: Final = 10
GATEWAY_DRAIN_S: Final = 10
PRE_STOP_S: Final = GATEWAY_PRE_STOP_S + GATEWAY_DRAIN_S + 2
_MARGIN_S: Final = 10  # a guess: closing connections and flushing spans after the drain


class Process(msgspec.Struct, frozen=True):
    """One process of the image.

    `drain_s` is the time to finish work in progress at shutdown.
    """

    name: str
    admin_port: int
    drain_s: int
    resources: Resources
    serves: bool = False

    @property
    def command(self) -> list[str]:
        """The command of the process's container."""
        return ["orders", self.name]

    @property
    def grace_period_s(self) -> int:
        """How long Kubernetes waits before it kills the pod: longer than all drains."""
        return (PRE_STOP_S if self.serves else 0) + self.drain_s + _MARGIN_S


def _resources(cpu: str, memory: str, memory_limit: str) -> Resources:
    """Limit memory but not CPU: a throttled process is slow without a visible cause."""
    return Resources(requests=Amounts(cpu=cpu, memory=memory), limits=Amounts(memory=memory_limit))


# Guesses until the load tests have measured them in a cluster.
API: Final = Process("api", 8081, 10, _resources("500m", "256Mi", "512Mi"), serves=True)
RELAY: Final = Process("relay", 8082, 10, _resources("100m", "96Mi", "256Mi"))
WORKER: Final = Process("worker", 8083, 25, _resources("250m", "192Mi", "384Mi"))
NOTIFIER: Final = Process("notifier", 8084, 15, _resources("100m", "96Mi", "256Mi"))

ALL: Final = (API, RELAY, WORKER, NOTIFIER)


def section(service: OrderService, process: Process) -> Api | Relay | Worker | Notifier:
    """Return the section of the resource about a process."""
    sections: dict[str, Api | Relay | Worker | Notifier] = {
        API.name: service.spec.api,
        RELAY.name: service.spec.relay,
        WORKER.name: service.spec.worker,
        NOTIFIER.name: service.spec.notifier,
    }
    return sections[process.name]


def name_of(service: OrderService, process: Process) -> str:
    """Return the name that the children of a process have."""
    return f"{service.metadata.name}-{process.name}"


def fewest_replicas(service: OrderService, process: Process) -> int:
    """Return how many pods a process has at least."""
    autoscaling = _autoscaling(service, process)
    return autoscaling[0] if autoscaling else section(service, process).replicas


def most_replicas(service: OrderService, process: Process) -> int:
    """Return how many pods a process has at most."""
    autoscaling = _autoscaling(service, process)
    return autoscaling[1] if autoscaling else section(service, process).replicas


def is_autoscaled(service: OrderService, process: Process) -> bool:
    """Return whether the resource wants the process to be scaled."""
    return _autoscaling(service, process) is not None


def _autoscaling(service: OrderService, process: Process) -> tuple[int, int] | None:
    autoscaling = getattr(section(service, process), "autoscaling", None)
    return (autoscaling.min_replicas, autoscaling.max_replicas) if autoscaling else None
