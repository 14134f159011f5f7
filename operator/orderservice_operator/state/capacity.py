"""How many database connections all pods together can take. Pure."""

from orderservice_operator.children import processes
from orderservice_operator.resource.spec import OrderService

# A relay also holds the connection that listens for wake-ups and has the lock of the active one.
_BESIDE_THE_POOL = {processes.RELAY.name: 1}


def most_connections(service: OrderService) -> int:
    """Return the connections to the primary when every process runs as many pods as it may."""
    return sum(
        processes.most_replicas(service, process) * _of_a_pod(service, process)
        for process in processes.ALL
    )


def _of_a_pod(service: OrderService, process: processes.Process) -> int:
    forks = service.spec.api.workers if process is processes.API else 1
    return forks * service.spec.database.pool_size + _BESIDE_THE_POOL.get(process.name, 0)
