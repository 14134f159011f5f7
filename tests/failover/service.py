"""One process of the `orders` package, and what its admin port tells."""

import http.client
from dataclasses import dataclass
from typing import Final

from devstack.program import Program

HOST: Final = "127.0.0.1"


@dataclass(frozen=True)
class Service:
    """A process; `port` is where an api listens."""

    name: str
    kind: str
    program: Program
    admin_port: int
    port: int

    def answers(self, path: str, timeout_s: float = 2.0) -> bool:
        """Return whether its admin port answers a path with 200."""
        return self.get(path, timeout_s)[0] == 200

    def get(self, path: str, timeout_s: float = 2.0) -> tuple[int, str]:
        """Ask its admin port; status 0 when there is no answer."""
        return http_get(self.admin_port, path, timeout_s)

    def metric(self, name: str) -> float:
        """Return a metric that has no labels, NaN when it cannot be had."""
        lines = self.get("/metrics")[1].splitlines()
        values = [float(line.split()[1]) for line in lines if line.startswith(f"{name} ")]
        return values[0] if values else float("nan")


def http_answers(port: int, path: str, timeout_s: float = 2.0) -> bool:
    """Return whether a port of this machine answers a path with 200."""
    return http_get(port, path, timeout_s)[0] == 200


def http_get(port: int, path: str, timeout_s: float) -> tuple[int, str]:
    """Ask a port of this machine; status 0 when there is no answer."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()
