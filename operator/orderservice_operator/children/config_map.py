"""The ConfigMap with the settings of a process."""

from orderservice_operator.children import environment
from orderservice_operator.children.manifest import Manifest, child, digest
from orderservice_operator.children.processes import Process, name_of
from orderservice_operator.resource.spec import OrderService


def config_map_name(service: OrderService, process: Process) -> str:
    """Return its name, which has a hash of its data.

    Changed settings make a new ConfigMap: old pods keep the old settings, even when they restart,
    and only new pods have the new ones.
    """
    return f"{name_of(service, process)}-{digest(environment.settings(service, process))}"


def config_map(service: OrderService, process: Process) -> Manifest:
    """Return the settings of one process, so that a change restarts only that process."""
    name = config_map_name(service, process)
    manifest = child(service, "v1", "ConfigMap", name=name, component=process.name)
    return manifest | {"immutable": True, "data": environment.settings(service, process)}
