"""The stack of a torture run: failpoints in every process, and a keeper that starts dead ones."""

import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import requests

from devstack.program import StartFailed
from devstack.settings import SOURCE
from failover import outages
from failover.evidence import DEAD
from failover.proxy import Proxies
from failover.service import Service
from failover.stack import Stack
from torture.record import LIVE_TTL_S

TESTS: Final = Path(__file__).parents[1]
HOOK: Final = Path(__file__).parent / "hook"
# As the tiers' names say, divided so that a message's attempts outlast the longest fault.
TIERS_MS: Final = {".5s": 1_000, ".30s": 6_000, ".5m": 15_000}
_LOOK_EVERY_S: Final = 0.3
_BACK_AFTER_S: Final = 1.0
_STOP_WITHIN_S: Final = 30.0

SETTINGS: Final = {
    # No message may be lost: the sweeper, which would hide that, comes after the run.
    "ORDERS_WORKER_STALLED_AFTER_S": "3600",
    "ORDERS_NOTIFICATION_FIRST_RETRY_S": "1",
    "ORDERS_NOTIFICATION_LONGEST_RETRY_S": "5",
    # A starved machine is not a Redis that is gone: what a writer cannot tell it comes late.
    "ORDERS_REDIS_TIMEOUT_S": "0.5",
    # With the default of 2 s, what is wrong in the cache is gone before clients look again.
    "ORDERS_REDIS_LIVE_TTL_S": f"{LIVE_TTL_S:g}",
    "ORDERS_UPSTREAM_TRY_TIMEOUT_S": "2",
    "ORDERS_UPSTREAM_TIMEOUT_S": "6",
}


class Rig(Stack):
    """A stack whose services come from `source` and are started again when they end."""

    def __init__(self, state: Path, group: Proxies, *, source: Path = SOURCE) -> None:
        self._source = source
        super().__init__(state, group, SETTINGS, standbys=2, synchronous=True)
        self.locks = {name: threading.Lock() for name in self.services}
        self.restarts: Counter[str] = Counter()
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def start(self) -> None:
        """Start everything, then keep the services running."""
        super().start()
        outages.change_policies(self, _shorter)
        self._keeper.start()

    def stop(self) -> None:
        """Stop the keeper, then all services."""
        self._stopping.set()
        if self._keeper.is_alive():
            self._keeper.join(20)
        super().stop()

    def restart(self, name: str, environment: Mapping[str, str] | None = None) -> None:
        """End a service as Kubernetes does and start it again, with other variables if given."""
        program = self.services[name].program
        with self.locks[name]:
            program.stop(_STOP_WITHIN_S)
            if environment is not None:
                program.component = replace(program.component, environment=environment)
            self.run(program.spawn)

    def ready(self, name: str, within_s: float) -> bool:
        """Wait until a service is ready; false if the time is up."""
        until_s = time.monotonic() + within_s
        while not self.services[name].answers("/readyz", 1.0):
            if time.monotonic() > until_s or self._stopping.wait(_LOOK_EVERY_S):
                return False
        return True

    def armed(self, service: str, point: str) -> Path:
        """Name the file that arms a failpoint of a service."""
        return self._points(service) / point

    def messages(self) -> int:
        """Count the messages that wait or are in hand, as of some seconds ago; not dead ones."""
        queues = requests.get(f"{self.broker.management_url}/api/queues", timeout=10).json()
        return sum(queue.get("messages", 0) for queue in queues if queue["name"] not in DEAD)

    def _keep(self) -> None:
        gone_at_s: dict[str, float] = {}
        while not self._stopping.wait(_LOOK_EVERY_S):
            for name, service in self.services.items():
                if service.program.running():
                    gone_at_s.pop(name, None)
                elif (
                    time.monotonic() - gone_at_s.setdefault(name, time.monotonic()) > _BACK_AFTER_S
                ):
                    with suppress(OSError, StartFailed):
                        self._bring_back(name)

    def _bring_back(self, name: str) -> None:
        program = self.services[name].program
        if not self.locks[name].acquire(blocking=False):
            return  # somebody restarts it
        try:
            if not program.running():
                program.end_group()  # what the dead one left behind holds its port
                self.run(program.spawn)
                self.restarts[name] += 1
        finally:
            self.locks[name].release()

    def _environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        path = f"{HOOK}:{TESTS}:{self._source}"
        return super()._environment(settings) | {"PYTHONPATH": path}

    def _service(self, kind: str, name: str) -> Service:
        service = super()._service(kind, name)
        folder = self._points(name)
        folder.mkdir(parents=True)
        component = service.program.component
        environment = {**component.environment, "ORDERS_FAILPOINTS": str(folder)}
        service.program.component = replace(component, environment=environment)
        return service

    def _points(self, service: str) -> Path:
        return self.state / "failpoints" / service


def _shorter(policy: str, rules: dict[str, Any]) -> dict[str, Any]:
    if "message-ttl" not in rules:
        return {}
    return next(
        {"message-ttl": ttl_ms} for tier, ttl_ms in TIERS_MS.items() if policy.endswith(tier)
    )
