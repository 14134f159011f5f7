"""Balance as a Kubernetes Service does: new connections go to the ready replicas in turn.

Each replica of the api has a gateway of its own beside it, as in its pod, which is ready when both
are.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from failover.proxy import Proxy
from failover.service import Service, http_answers

# As the operator sets the readiness probe: every 5 s, out after two failures in a row.
PERIOD_S: Final = 5.0
FAILURES: Final = 2
_PROBE_TIMEOUT_S: Final = 1.0


@dataclass
class Endpoint:
    """A replica: its admin port and its gateway are asked, its gateway is led to."""

    service: Service
    gateway_port: int
    failures: int = 0

    def probe(self) -> None:
        """Probe once whether the replica is ready."""
        ready = self.service.answers("/readyz", _PROBE_TIMEOUT_S) and http_answers(
            self.gateway_port, "/gateway/livez", _PROBE_TIMEOUT_S
        )
        self.failures = 0 if ready else self.failures + 1


class Balancer:
    """Leads a proxy to the gateways of the replicas that are ready."""

    def __init__(self, proxy: Proxy, endpoints: Sequence[Endpoint]) -> None:
        self._proxy, self._endpoints = proxy, endpoints
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="balancer", daemon=True)

    def start(self) -> None:
        """Begin to ask; until the first answers every replica counts as ready."""
        self._thread.start()

    def stop(self) -> None:
        """End asking; nothing is to be done if it never began: Ctrl-C may come that early."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_S):
            probes = [
                threading.Thread(target=endpoint.probe, daemon=True) for endpoint in self._endpoints
            ]
            for probe in probes:
                probe.start()
            for probe in probes:
                probe.join()
            ready = [api.gateway_port for api in self._endpoints if api.failures < FAILURES]
            self._proxy.point(*ready)
