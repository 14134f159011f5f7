"""ConfigMap."""

from orderservice_operator.children import environment
from orderservice_operator.children.processes import Process, name_of
from orderservice_operator.manifest import Manifest, child
from orderservice_operator.resource.spec import OrderService


def config_map(service: OrderService, process: Process) -> Manifest:
    """Return the settings of a process; each has its own, so that only what changed restarts."""
    name = name_of(service, process)
    made = child(service, "v1", "ConfigMap", name=name, component=process.name)
    return made | {"data": environment.settings(service, process)}
