"""Frozen processes: SIGSTOP for a minute, then SIGCONT, as a starved or swapped-out machine does.

Either the work goes on elsewhere, or the liveness probe fails and the kubelet starts the process
again: nothing may wait for the frozen one for longer.
"""

import math
import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import psutil

from devstack.servers import postgres
from failover.databases import Node
from failover.history import History
from failover.service import HOST, Service, http_answers
from failover.stack import Stack
from gateway.admin import live

FROZEN_S: Final = float(os.environ.get("FAILOVER_FROZEN_S", "60"))
GOES_ON_WITHIN_S: Final = 20.0
PROBE_FAILS_WITHIN_S: Final = 30.0
# As the operator sets them: three failures in a row, 10 s apart.
_PROBE_FAILURES_LAST_S: Final = 20.0
# How long they wait for an answer: of our processes, and of servers.
_TIMEOUT_S: Final = 2.0
_SERVER_TIMEOUT_S: Final = 5.0


Probe = Callable[[], bool]


@dataclass
class Frozen:
    """The process to freeze, and the liveness probe of its pod, if it has one."""

    stop: Callable[[], None]
    go_on: Callable[[], None]
    probe: Probe | None = None
    # A fault of the order path itself, which the checks must know of.
    subject: str = ""


@dataclass
class Outcome:
    """The effects of a freeze, in seconds after it began; None: it had no such effect."""

    since_s: float = 0.0  # time of day; to stop fifty sessions takes a busy machine seconds
    goes_on_s: float | None = None  # every client wrote, and a new order was told
    probe_fails_s: float | None = None
    late: list[int] = field(default_factory=list)  # marks told later than in time

    @property
    def survives(self) -> bool:
        """Whether other processes took over in time, or a restart would have come."""
        on = self.goes_on_s is not None and self.goes_on_s <= GOES_ON_WITHIN_S and not self.late
        fails = self.probe_fails_s is not None and self.probe_fails_s <= PROBE_FAILS_WITHIN_S
        return on or fails


def _whole(service: Service) -> Frozen:
    return Frozen(service.program.pause, service.program.resume, _livez(service))


def _livez(service: Service) -> Probe:
    return partial(service.answers, "/livez", timeout_s=_TIMEOUT_S)


def _process_of_api(stack: Stack, name: str) -> Frozen:
    """Freeze one process of an api: `orders-worker`, `orders-admin`, or the master of both."""
    service = stack.services["api-1"]
    master = psutil.Process(service.program.pid)
    family = [master, *master.children()]
    process = next(member for member in family if member.name() == name) if name else master
    return Frozen(
        process.suspend,
        # One that hangs may have been replaced meanwhile.
        lambda: process.resume() if process.is_running() else None,
        _livez(service),
    )


def _gateway(stack: Stack) -> Frozen:
    gateway, port = stack.gateways[0], stack.endpoints[0].gateway_port
    probe = partial(live, port)
    return Frozen(gateway.pause, gateway.resume, probe)


def _server(stack: Stack, name: str, probe: Probe) -> Frozen:
    program = stack.servers[name]
    return Frozen(program.pause, program.resume, probe, subject=name)


def _simulator(stack: Stack, name: str) -> Frozen:
    port = stack.simulator_ports[name]
    return _server(stack, name, partial(http_answers, port, "/livez", _TIMEOUT_S))


def _valkey(stack: Stack) -> Frozen:
    return _server(stack, "valkey", partial(_pings, stack.valkey_port))


def _pings(port: int) -> bool:
    """Do what `valkey-cli ping` does, for as long as its probe waits."""
    try:
        with socket.create_connection((HOST, port), timeout=_SERVER_TIMEOUT_S) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _rabbitmq(stack: Stack) -> Frozen:
    port = stack.broker.management_port
    return _server(stack, "rabbitmq", partial(http_answers, port, "/", _SERVER_TIMEOUT_S))


def _postgres(node: Node) -> Frozen:
    programs = postgres.programs(node.cluster.state)
    ready = (str(programs / "pg_isready"), "--host=127.0.0.1", f"--port={node.port}")
    # As in the chart: a server that refuses connections while it recovers lives.
    return Frozen(
        node.program.pause,
        node.program.resume,
        partial(_succeeds, ready, codes=(0, 1)),
        subject="postgres",
    )


def _succeeds(argv: Sequence[str], codes: Sequence[int] = (0,)) -> bool:
    try:
        process = subprocess.run(argv, capture_output=True, timeout=_SERVER_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return False
    return process.returncode in codes


# The probes are those of the operator's pods and of the environment's chart.
FREEZES: Final[dict[str, Callable[[Stack], Frozen]]] = {
    "api": lambda stack: _whole(stack.services["api-1"]),
    "gunicorn master": lambda stack: _process_of_api(stack, ""),
    "gunicorn worker": lambda stack: _process_of_api(stack, "orders-worker"),
    "admin process": lambda stack: _process_of_api(stack, "orders-admin"),
    "gateway": _gateway,
    "leading relay": lambda stack: _whole(stack.leading_relay()),
    "worker": lambda stack: _whole(stack.services["worker-1"]),
    "notifier": lambda stack: _whole(stack.services["notifier-1"]),
    "postgres": lambda stack: _postgres(stack.databases.leader),
    "read replica": lambda stack: _postgres(stack.databases.standbys[-1]),
    "valkey": _valkey,
    "rabbitmq": _rabbitmq,
    "inventory": lambda stack: _simulator(stack, "inventory"),
    "payment": lambda stack: _simulator(stack, "payment"),
}


def freeze(stack: Stack, history: History, kind: str) -> Outcome:
    """Freeze one process for `FROZEN_S` under load and watch its probe."""
    frozen, outcome = FREEZES[kind](stack), Outcome()
    fault = history.fault("SIGSTOP", frozen.subject or kind)
    frozen.stop()
    outcome.since_s = time.time()
    failing_since_s: float | None = None
    try:
        while time.time() < outcome.since_s + FROZEN_S:
            if frozen.probe is not None and outcome.probe_fails_s is None:
                asked_s = time.time()
                if frozen.probe():
                    failing_since_s = None
                elif failing_since_s is None:
                    failing_since_s = asked_s
                elif asked_s - failing_since_s >= _PROBE_FAILURES_LAST_S:
                    outcome.probe_fails_s = asked_s - outcome.since_s
            time.sleep(0.5)
    finally:
        frozen.go_on()
        fault.ended_s = time.time()
    return outcome


def judge(history: History, told_at_s: dict[int, float], outcome: Outcome) -> None:
    """Add from the histories when all clients were served again, and what came late."""
    fault = history.faults[-1]
    first_told_s = math.inf
    first_write_s: dict[int, float] = {entry.client: math.inf for entry in history.entries}
    for entry in history.entries:
        if entry.action != "place" or entry.status != 202 or entry.mark is None:
            continue
        told_s = told_at_s.get(entry.mark, math.inf)
        if entry.sent_s > outcome.since_s:
            earlier_s = first_write_s[entry.client]
            first_write_s[entry.client] = min(earlier_s, entry.answered_s)
            first_told_s = min(first_told_s, told_s)
        frozen_since_s = max(outcome.since_s, entry.answered_s)
        if entry.answered_s < fault.ended_s and told_s > frozen_since_s + GOES_ON_WITHIN_S:
            outcome.late.append(entry.mark)
    goes_on_s = max(first_told_s, *first_write_s.values())
    outcome.goes_on_s = goes_on_s - outcome.since_s if goes_on_s < math.inf else None
