"""Frozen processes: SIGSTOP for a minute, then SIGCONT, as a starved or swapped-out machine does.

Either the work goes on elsewhere, or the liveness probe fails and the kubelet starts the process
again: nothing may wait for the frozen one for longer.
"""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import psutil

from failover.history import History
from failover.service import Service
from failover.stack import Stack

FROZEN_S: Final = float(os.environ.get("FAILOVER_FROZEN_S", "60"))
GOES_ON_WITHIN_S: Final = 20.0
PROBE_FAILS_WITHIN_S: Final = 30.0
# As the operator sets them: three failures in a row, 10 s apart.
_PROBE_FAILURES_LAST_S: Final = 20.0


@dataclass
class Frozen:
    """What is to be frozen; `service` has the probe, if it has one."""

    stop: Callable[[], None]
    go_on: Callable[[], None]
    service: Service | None = None


@dataclass
class Outcome:
    """What was seen of a freeze, in seconds after it began; None: it did not happen."""

    goes_on_s: float | None = None  # every client wrote, and a new order was told
    probe_fails_s: float | None = None
    late: list[int] = field(default_factory=list)  # marks told later than in time

    @property
    def survives(self) -> bool:
        """Tell whether the work went on elsewhere in time, or a restart would have come."""
        on = self.goes_on_s is not None and self.goes_on_s <= GOES_ON_WITHIN_S and not self.late
        fails = self.probe_fails_s is not None and self.probe_fails_s <= PROBE_FAILS_WITHIN_S
        return on or fails


def _whole(service: Service) -> Frozen:
    return Frozen(service.program.pause, service.program.resume, service)


def _a_gunicorn_worker(stack: Stack) -> Frozen:
    service = stack.services["api-1"]
    children = psutil.Process(service.program.pid).children()
    worker = next(child for child in children if len(child.net_connections()) > 0)
    return Frozen(worker.suspend, lambda: worker.resume() if worker.is_running() else None, service)


def _server(stack: Stack, name: str) -> Frozen:
    program = stack.servers[name]
    return Frozen(program.pause, program.resume)


def _standby(stack: Stack) -> Frozen:
    program = stack.databases.standbys[-1].program
    return Frozen(program.pause, program.resume)


FREEZES: Final[dict[str, Callable[[Stack], Frozen]]] = {
    "api": lambda stack: _whole(stack.services["api-1"]),
    "gunicorn worker": _a_gunicorn_worker,
    "leading relay": lambda stack: _whole(stack.leading_relay()),
    "worker": lambda stack: _whole(stack.services["worker-1"]),
    "notifier": lambda stack: _whole(stack.services["notifier-1"]),
    "valkey": lambda stack: _server(stack, "valkey"),
    "read replica": _standby,
}


def freeze(stack: Stack, history: History, kind: str) -> Outcome:
    """Freeze one process for `FROZEN_S` under load and watch its probe."""
    frozen, outcome = FREEZES[kind](stack), Outcome()
    fault = history.fault("SIGSTOP", "valkey" if kind == "valkey" else kind)
    frozen.stop()
    failing_since_s: float | None = None
    try:
        while time.time() < fault.began_s + FROZEN_S:
            if frozen.service is not None and outcome.probe_fails_s is None:
                asked_s = time.time()
                if frozen.service.answers("/livez", timeout_s=1.0):
                    failing_since_s = None
                elif failing_since_s is None:
                    failing_since_s = asked_s
                elif asked_s - failing_since_s >= _PROBE_FAILURES_LAST_S:
                    outcome.probe_fails_s = asked_s - fault.began_s
            time.sleep(0.5)
    finally:
        frozen.go_on()
        fault.ended_s = time.time()
    return outcome


def judge(history: History, told_at_s: dict[int, float], outcome: Outcome) -> None:
    """Fill in from the histories when work went on for everybody, and what came late."""
    fault = history.faults[-1]
    first_told_s = math.inf
    first_write_s: dict[int, float] = {entry.client: math.inf for entry in history.entries}
    for entry in history.entries:
        if entry.action != "place" or entry.status != 202 or entry.mark is None:
            continue
        told_s = told_at_s.get(entry.mark, math.inf)
        if entry.sent_s > fault.began_s:
            earlier_s = first_write_s[entry.client]
            first_write_s[entry.client] = min(earlier_s, entry.answered_s)
            first_told_s = min(first_told_s, told_s)
        frozen_since_s = max(fault.began_s, entry.answered_s)
        if entry.answered_s < fault.ended_s and told_s > frozen_since_s + GOES_ON_WITHIN_S:
            outcome.late.append(entry.mark)
    goes_on_s = max(first_told_s, *first_write_s.values())
    outcome.goes_on_s = goes_on_s - fault.began_s if goes_on_s < math.inf else None
