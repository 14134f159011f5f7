"""Carry out the moments of a scenario while its load runs."""

import threading
import time
from collections.abc import Callable

import msgspec

from loadtest.scenario import Act, Component, Moment, Poison, Upstream
from loadtest.target import broker, simulators
from loadtest.target.addresses import Target
from loadtest.target.http import Unreachable
from loadtest.target.local_stack import StackFailed


class Event(msgspec.Struct):
    """Something that was done, and how long it took."""

    at_s: float
    text: str
    took_s: float = 0.0


Executor = Callable[[Act], None]  # raises Unreachable, StackFailed


class Timetable:
    """A thread that performs each act at its time, or once the act before it has ended."""

    def __init__(
        self, moments: tuple[Moment, ...], do: Executor, report: Callable[[Event], None]
    ) -> None:
        """Take the acts, the functions that carry them out, and the one that reports them."""
        self.events: list[Event] = []
        self.failure: Exception | None = None
        self._moments, self._do, self._report = moments, do, report
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="faults", daemon=True)
        self._began_s = 0.0

    def start(self) -> None:
        """Begin: now is second 0."""
        self._began_s = time.monotonic()
        self._thread.start()

    def finish(self) -> None:
        """Wait until all acts have ended: a stopped server must be started again."""
        self._thread.join()

    def abandon(self) -> None:
        """Skip acts that are not due yet, because the run was aborted."""
        self._stop.set()

    def _run(self) -> None:
        for moment in sorted(self._moments, key=lambda due: due.at_s):
            if self._stop.wait(max(0.0, self._began_s + moment.at_s - time.monotonic())):
                return
            try:
                self._carry_out(moment)
            except (Unreachable, StackFailed) as error:
                self.failure = error
                return

    def _carry_out(self, moment: Moment) -> None:
        start = time.monotonic()
        event = Event(round(start - self._began_s, 1), describe(moment.act))
        self.events.append(event)
        self._report(event)
        self._do(moment.act)
        event.took_s = round(time.monotonic() - start, 1)


def executor(target: Target, ask: Callable[[str], None]) -> Executor:
    """Return the functions that carry out acts; `ask` prompts a person if the run cannot do it."""

    def do(act: Act) -> None:
        match act:
            case Upstream(name=name, faults=faults):
                simulators.set_faults(str(getattr(target, name)), faults)
            case Poison(count=count, queue=queue):
                broker.poison(str(target.management), queue, count)
            case Component(verb=verb, name=name) if target.stack is not None:
                target.stack.do(verb, name)
            case Component(verb=verb, name=name):
                ask(f"please {verb} {name} now")

    return do


def describe(act: Act) -> str:
    """Return a description of the act."""
    match act:
        case Upstream(name=name, faults=faults) if faults:
            return f"{name}: " + ", ".join(f"{key} {value:g}" for key, value in faults.items())
        case Upstream(name=name):
            return f"{name}: well again"
        case Poison(count=count, queue=queue):
            return f"{count} unreadable messages into {queue}"
        case Component(verb=verb, name=name):
            return f"{verb} {name}"
