"""Which doors in the environment's namespace open to whom, tried from inside a pod."""

from collections.abc import Callable
from typing import Final

import msgspec

DOORS: Final = {
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
MEANT: Final = {
    "api": {"postgresql", "valkey", "inventory", "webhooks"},
    "relay": {"postgresql", "rabbitmq", "webhooks"},
    "worker": {"postgresql", "rabbitmq", "valkey", "inventory", "payment", "webhooks"},
    "notifier": {"postgresql", "rabbitmq", "webhooks", "api"},
}
MEANT_FOR_STRANGERS: Final = {"kubernetes"}
_TRY: Final = """
import concurrent.futures, json, socket, sys
def opens(door):
    try:
        socket.create_connection((door[0], int(door[1])), 4).close()
    except OSError:
        return False
    return True
doors = json.loads(sys.argv[1])
with concurrent.futures.ThreadPoolExecutor(len(doors)) as pool:
    reachable = pool.map(opens, [place.split(":") for place in doors.values()])
print(json.dumps([name for name, is_open in zip(doors, reachable) if is_open]))
"""


def opened(kubectl: Callable[..., str], namespace: str, pod: str, *, search: str = "") -> set[str]:
    """Return the doors that open to a pod; `search`: the namespace of those that name none."""
    doors = {name: _full(place, search) for name, place in DOORS.items()}
    argument = msgspec.json.encode(doors).decode()
    output = kubectl("--namespace", namespace, "exec", pod, "--", "python", "-c", _TRY, argument)
    return set(msgspec.json.decode(output, type=list[str]))


def _full(place: str, namespace: str) -> str:
    host, port = place.split(":")
    return place if not namespace or "." in host else f"{host}.{namespace}:{port}"
