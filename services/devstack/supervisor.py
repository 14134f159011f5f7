"""The supervisor: starts in dependency order, restarts what crashes, stops in stages."""

import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import groupby

import psutil

from devstack import ports, report
from devstack.component import Component
from devstack.keeper import Keeper
from devstack.report import ProgressReport

REAP_S = 1.0
# What has not ended by then is killed, so that all is over within 15 s.
STOP_WITHIN_S = 13.0


VERBS = ("start", "stop", "restart", "kill", "pause", "resume")


class PortsTaken(Exception):
    """Free the listed ports, or set the variables in the message to others."""


class UnknownComponent(Exception):
    """Name one of the components that `status` lists."""


class Supervisor:
    """The keepers of all components."""

    def __init__(self, components: list[Component], output: ProgressReport) -> None:
        """Take the components; each must come after its dependencies."""
        self.report = output
        self.leaving = threading.Event()
        self.stop_requested = False
        self.keepers: dict[str, Keeper] = {}
        for component in components:
            needs = [self.keepers[name] for name in component.needs]
            self.keepers[component.name] = Keeper(component, needs, output, self.leaving.set)

    def start(self) -> bool:
        """Start all components, in parallel where dependencies allow; return False if one failed.

        Raises: PortsTaken before anything is started.
        """
        refuse_taken_ports(keeper.component for keeper in self.keepers.values() if keeper.wanted)
        for keeper in self.keepers.values():
            keeper.thread.start()
        return all(self.came_up(keeper) for keeper in self.keepers.values() if keeper.wanted)

    def came_up(self, keeper: Keeper) -> bool:
        """Wait until a component is ready; return False if the stack stops before."""
        while not keeper.ready.wait(0.1):
            if self.leaving.is_set():
                return False
        return True

    def run(self) -> None:
        """Wait until `leave` is called; reap the processes that lost their parent."""
        while not self.leaving.wait(REAP_S):
            reap_adopted(self.known())

    def leave(self) -> None:
        """Request the stop, which the thread in `run` then begins."""
        self.stop_requested = True
        self.leaving.set()

    def known(self) -> set[int]:
        """Return the process ids that the keepers wait for."""
        programs = [keeper.program.process for keeper in self.keepers.values()]
        return {process.pid for process in programs if process is not None}

    def stop(self) -> None:
        """End everything, stage by stage: gateway, api, consumers, simulators, servers."""
        deadline = time.monotonic() + STOP_WITHIN_S
        self.leaving.set()
        last_first = sorted(
            self.keepers.values(), key=lambda keeper: keeper.component.stage, reverse=True
        )
        for keeper in last_first:
            keeper.leaving = True
        for _, stage in groupby(last_first, key=lambda keeper: keeper.component.stage):
            in_parallel([partial(keeper.leave, deadline) for keeper in stage])

    def command(self, verb: str, name: str) -> None:
        """Carry out start, stop, pause, resume, kill or restart. Raises: UnknownComponent."""
        keeper = self.keepers.get(name)
        if keeper is None:
            message = f"no component {name!r}: there are {', '.join(self.keepers)}"
            raise UnknownComponent(message)
        actions: dict[str, list[Callable[[], None]]] = {
            "start": [keeper.switch_on],
            "stop": [keeper.switch_off],
            "pause": [keeper.pause],
            "resume": [keeper.resume],
            "kill": [keeper.kill],
            "restart": [keeper.switch_off, keeper.switch_on],
        }
        for action in actions[verb]:
            action()

    def unready(self) -> dict[str, str]:
        """Return the wanted components that are neither ready nor done, with their states."""
        keepers = [k for k in self.keepers.values() if k.wanted or not k.component.optional]
        states = {keeper.component.name: shown(keeper) for keeper in keepers}
        return {name: state for name, state in states.items() if state not in ("ready", "done")}

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table that `status` shows."""
        return [row(keeper) for keeper in self.keepers.values()]


def row(keeper: Keeper) -> tuple[str, ...]:
    """Return a component's line of the table."""
    uptime = report.duration(time.monotonic() - keeper.since)
    pid, address = str(keeper.program.pid or "-"), keeper.component.address or "-"
    return (keeper.component.name, shown(keeper), pid, uptime, str(keeper.restarts), address)


def shown(keeper: Keeper) -> str:
    """Return the state; a process that a signal has stopped is not ready."""
    return "frozen" if keeper.state == "ready" and keeper.program.frozen() else keeper.state


def refuse_taken_ports(components: Iterable[Component]) -> None:
    """Check every port before anything starts. Raises: PortsTaken naming all busy ones."""
    lines = [
        f"port {port} ({component.name}) is taken by {ports.holder(port)}: set {name} to another"
        for component in components
        for name, port in component.ports.items()
        if ports.busy(port)
    ]
    if lines:
        advice = "or move all ports at once with DEVSTACK_PORT_OFFSET"
        raise PortsTaken("\n".join([*lines, advice]))


def in_parallel(actions: list[Callable[[], None]]) -> None:
    """Run actions in threads and wait for all of them."""
    threads = [threading.Thread(target=action) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def reap_adopted(own_pids: set[int]) -> None:
    """Reap ended processes that we inherited when their parent died."""
    session = os.getsid(0)
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess, ProcessLookupError, ChildProcessError):
            is_zombie = child.pid not in own_pids and child.status() == psutil.STATUS_ZOMBIE
            # Programs of our own session, and new ones, are waited for by the threads that started
            # them.
            if (
                is_zombie
                and os.getsid(child.pid) != session
                and time.time() - child.create_time() > 1
            ):
                os.waitpid(child.pid, os.WNOHANG)
