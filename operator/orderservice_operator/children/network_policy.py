"""NetworkPolicies: only the traffic listed here may enter or leave the service's pods."""

from collections.abc import Iterable

from orderservice_operator.children import environment, gateway
from orderservice_operator.children.context import Context
from orderservice_operator.children.manifest import Manifest, child, selector
from orderservice_operator.children.processes import (
    GATEWAY_ADMIN_PORT,
    Process,
    name_of,
)
from orderservice_operator.resource.operations import Peer
from orderservice_operator.resource.spec import OrderService


def default_deny(service: OrderService) -> Manifest:
    """Return the policy that denies all pods of the service everything but DNS.

    Its name has a suffix, so that it cannot equal another resource's name for its worker policy.
    """
    name = f"{service.metadata.name}-default-deny"
    policy = child(service, "networking.k8s.io/v1", "NetworkPolicy", name=name)
    policy["spec"] = {
        "podSelector": {"matchLabels": selector(service)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [],  # explicit, so that a rule added by hand is detected
        "egress": [_dns(service)],
    }
    return policy


def network_policy(service: OrderService, process: Process, context: Context) -> Manifest:
    """Return the flows of a process: by port, because the servers' addresses are in Secrets.

    While pods of the previous version may run, their flows are allowed too.
    """
    versions = [service] + ([context.before] if context.before else [])
    ports = {port for version in versions for port in environment.outgoing_ports(version, process)}
    outgoing = sorted(ports)
    policy = _policy(service, name_of(service, process), process.name, outgoing)
    policy["spec"]["ingress"] = _incoming(versions, process)
    policy["spec"]["policyTypes"].append("Ingress")
    return policy


def migration_policy(service: OrderService, component: str) -> Manifest:
    """Return the flows of the migration Job."""
    name = f"{service.metadata.name}-{component}"
    return _policy(service, name, component, [service.spec.database.port])


def reconciliation_policy(service: OrderService, component: str) -> Manifest:
    """Return the flows of the runs of reconciliation."""
    name = f"{service.metadata.name}-{component}"
    return _policy(service, name, component, environment.reconciliation_ports(service))


def _dns(service: OrderService) -> Manifest:
    ports = service.spec.network_policy.dns_ports
    return {
        "ports": [{"port": port, "protocol": name} for port in ports for name in ("UDP", "TCP")]
    }


def _outgoing(service: OrderService, ports: Iterable[int]) -> Manifest:
    """Return the egress rule: these ports, to anywhere or to the allowed peers."""
    rule: Manifest = {"ports": [_tcp(port) for port in ports]}
    if peers := service.spec.network_policy.egress_to:
        rule["to"] = [_peer(peer) for peer in peers]
    return rule


def _policy(service: OrderService, name: str, component: str, ports: Iterable[int]) -> Manifest:
    policy = child(service, "networking.k8s.io/v1", "NetworkPolicy", name=name, component=component)
    policy["spec"] = {
        "podSelector": {"matchLabels": selector(service, component)},
        "policyTypes": ["Egress"],
        "egress": [_outgoing(service, ports)],
    }
    return policy


def _incoming(versions: list[OrderService], process: Process) -> list[Manifest]:
    """Return the peers that may connect to the ports of all versions; kubelets always may."""
    network = versions[0].spec.network_policy
    if not process.serves:
        return [_from(network.metrics_from, process.admin_port)]
    return [
        _from(network.api_from, *sorted({gateway.port(version) for version in versions})),
        _from(network.metrics_from, process.admin_port, GATEWAY_ADMIN_PORT),
    ]


def _from(peers: Iterable[Peer], *ports: int) -> Manifest:
    own_namespace: Manifest = {"podSelector": {}}
    return {"from": [own_namespace, *map(_peer, peers)], "ports": [_tcp(port) for port in ports]}


def _peer(peer: Peer) -> Manifest:
    if block := peer.ip_block:
        exceptions = {"except": block.except_} if block.except_ else {}
        return {"ipBlock": {"cidr": block.cidr, **exceptions}}
    selectors: Manifest = {}
    if peer.namespace_labels:
        selectors["namespaceSelector"] = {"matchLabels": peer.namespace_labels}
    if peer.pod_labels:
        selectors["podSelector"] = {"matchLabels": peer.pod_labels}
    return selectors


def _tcp(port: int) -> Manifest:
    return {"port": port, "protocol": "TCP"}
