"""How many database connections all pods together can take. Pure.

It counts the pods of a roll-out of all processes at once, because a change of a setting that all
have in common is one. Pods that are being terminated are not counted: nothing bounds their number.
"""

import math
from typing import Final

import msgspec

from orderservice_operator.children import processes
from orderservice_operator.children.deployment import MAX_SURGE_PERCENT
from orderservice_operator.resource.spec import OrderService

_MIGRATION: Final = 2  # one that migrates, one that holds the lock
_RECONCILIATION: Final = 3  # one for its reads, one that commits, one that holds the leadership
_RELAY: Final = 2  # the session that reads and listens, and the one that holds the leadership


class Connections(msgspec.Struct, frozen=True):
    """Connections to the primary and to the replica."""

    primary: int
    replica: int


def most_connections(service: OrderService) -> Connections:
    """Return the connections if every process runs its most pods and a quarter more.

    The migration Job runs beside all of them, and so does a run of reconciliation.
    """
    primary = sum(
        _most_pods(service, process) * _of_a_pod(service, process) for process in processes.ALL
    )
    jobs = _MIGRATION if service.spec.migrations.enabled else 0
    jobs += _RECONCILIATION if service.spec.reconciliation.schedule else 0
    forks = _most_pods(service, processes.API) * service.spec.api.workers
    pool_and_lag = service.spec.database.pool_size + 1
    return Connections(
        primary=primary + jobs,
        replica=forks * pool_and_lag if service.spec.database.replica_secret_ref else 0,
    )


def _most_pods(service: OrderService, process: processes.Process) -> int:
    replicas = processes.most_replicas(service, process)
    return replicas + math.ceil(replicas * MAX_SURGE_PERCENT / 100)


def _of_a_pod(service: OrderService, process: processes.Process) -> int:
    """Return the connections to the primary of one pod.

    A fork of the api also measures the replica's lag, and its probes have a connection of their
    own. A worker has a connection for each message it works on and one for its probe, and holds
    the leadership of housekeeping.
    """
    spec = service.spec
    pool = spec.database.pool_size
    return {
        processes.API.name: spec.api.workers * (pool + bool(spec.database.replica_secret_ref)) + 1,
        processes.WORKER.name: max(pool, spec.worker.prefetch + 1) + 1,
        processes.RELAY.name: _RELAY,
        processes.NOTIFIER.name: pool,
    }[process.name]
