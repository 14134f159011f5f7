"""An environment whose servers have certificates of a private authority, and speak TLS only."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from devstack.certificates import Authority
from kube.api import Object

NAMESPACE: Final = "private"
VALUES: Final = Path(__file__).with_name("private.yaml")
_HEADERS: Final = "HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n"
_LIVE: Final = f"GET /livez {_HEADERS}"
_STARTUP: Final = "\0\3\0\0user\0orders\0database\0orders\0\0"
# What a client without TLS sends to each port, and how the answer of a server without TLS begins.
_ENDPOINTS: Final = {
    "orders-postgresql:5432": (f"\0\0\0{chr(len(_STARTUP) + 4)}{_STARTUP}", "R"),
    "orders-postgresql-replica:5432": (f"\0\0\0{chr(len(_STARTUP) + 4)}{_STARTUP}", "R"),
    "orders-rabbitmq:5672": ("AMQP\0\0\t\1", "\1\0\0"),
    "orders-rabbitmq:5671": ("AMQP\0\0\t\1", "\1\0\0"),
    "orders-rabbitmq:15672": (f"GET / {_HEADERS}", "HTTP/1.1"),
    "orders-rabbitmq:15671": (f"GET / {_HEADERS}", "HTTP/1.1"),
    "orders-valkey:6379": ("PING\r\n", "-NOAUTH"),
    "orders-inventory:8091": (_LIVE, "HTTP/1.1 200"),
    "orders-payment:8092": (_LIVE, "HTTP/1.1 200"),
    "orders-webhooks:8093": (_LIVE, "HTTP/1.1 200"),
    "orders-api:80": (f"GET /health {_HEADERS}", "HTTP/1.1 200"),
    "orders-api:443": (f"GET /health {_HEADERS}", "HTTP/1.1 200"),
}
# Those of an environment without TLS.
PLAIN: Final = set(_ENDPOINTS) - {"orders-rabbitmq:5671", "orders-rabbitmq:15671", "orders-api:443"}
_TRY: Final = """
import concurrent.futures, json, socket, sys
def answers(endpoint):
    address, (sent, begins) = endpoint
    host, port = address.split(":")
    try:
        with socket.create_connection((host, int(port)), 4) as connection:
            connection.settimeout(10)
            connection.sendall(sent.encode("latin-1"))
            return connection.recv(100).startswith(begins.encode("latin-1"))
    except OSError:
        return False
endpoints = json.loads(sys.argv[1])
with concurrent.futures.ThreadPoolExecutor(len(endpoints)) as pool:
    answered = pool.map(answers, endpoints.items())
print(json.dumps([address for address, answer in zip(endpoints, answered) if answer]))
"""


def certificate(folder: Path) -> Object:
    """Make an authority; return the Secret as cert-manager would, for all Services there."""
    authority = Authority(folder)
    pair = authority.server(hosts=(f"*.{NAMESPACE}.svc",))
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "orders-servers"},
        "type": "kubernetes.io/tls",
        "stringData": {
            "tls.crt": pair.certificate.read_text(),
            "tls.key": pair.key.read_text(),
            "ca.crt": authority.bundle.read_text(),
        },
    }


def answered_in_clear(kubectl: Callable[..., str], namespace: str) -> set[str]:
    """Return the ports of an environment that serve a client without TLS.

    The client is in a pod that no policy keeps from connecting.
    """
    argument = msgspec.json.encode(_ENDPOINTS).decode()
    pod = "deploy/orders-webhooks"
    answer = kubectl("--namespace", namespace, "exec", pod, "--", "python", "-c", _TRY, argument)
    return set(msgspec.json.decode(answer, type=list[str]))
