"""Try from inside a pod which endpoints of the environment each process can reach."""

from collections.abc import Callable
from typing import Final

import msgspec

ENDPOINTS: Final = {
    "api": "orders-api:80",
    "postgresql": "orders-postgresql:5432",
    "rabbitmq": "orders-rabbitmq:5672",
    "management": "orders-rabbitmq:15672",
    "valkey": "orders-valkey:6379",
    "inventory": "orders-inventory:8091",
    "payment": "orders-payment:8092",
    "webhooks": "orders-webhooks:8093",
    "kubernetes": "kubernetes.default:443",
}
# By the policies of charts and operator; the notifier may go to any web server, so to the api.
ALLOWED: Final = {
    "api": {"postgresql", "valkey", "inventory", "webhooks"},
    "relay": {"postgresql", "rabbitmq", "webhooks"},
    "worker": {"postgresql", "rabbitmq", "valkey", "inventory", "payment", "webhooks"},
    "notifier": {"postgresql", "rabbitmq", "webhooks", "api"},
}
ALLOWED_TO_STRANGERS: Final = {"kubernetes"}
_TRY: Final = """
import concurrent.futures, json, socket, sys
def is_open(endpoint):
    try:
        socket.create_connection((endpoint[0], int(endpoint[1])), 4).close()
    except OSError:
        return False
    return True
endpoints = json.loads(sys.argv[1])
with concurrent.futures.ThreadPoolExecutor(len(endpoints)) as pool:
    reachable = pool.map(is_open, [address.split(":") for address in endpoints.values()])
print(json.dumps([name for name, answered in zip(endpoints, reachable) if answered]))
"""


def reachable(
    kubectl: Callable[..., str], namespace: str, pod: str, *, search: str = ""
) -> set[str]:
    """Return the endpoints that a pod reaches; `search`: the namespace of those that name none."""
    endpoints = {name: _full(address, search) for name, address in ENDPOINTS.items()}
    argument = msgspec.json.encode(endpoints).decode()
    output = kubectl("--namespace", namespace, "exec", pod, "--", "python", "-c", _TRY, argument)
    return set(msgspec.json.decode(output, type=list[str]))


def _full(address: str, namespace: str) -> str:
    host, port = address.split(":")
    return address if not namespace or "." in host else f"{host}.{namespace}:{port}"
