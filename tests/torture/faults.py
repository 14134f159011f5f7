"""Carries a plan out: what each kind of fault does to the servers, and how it ends."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from failover import outages, promotions
from failover.history import Fault, History
from torture import faketime
from torture.plan import SERVICES, Plan, Planned, line, touched
from torture.points import ACTED, DAWDLE, EVERYWHERE, SLEEP_S
from torture.rig import Rig
from torture.shoppers import Haste

_READY_WITHIN_S: Final = 60.0
_ENDED_WITHIN_S: Final = 180.0
_FULL: Final = 1  # messages
# Servers that have to be there for a fault to be done.
_NEEDED: Final = {"fill": frozenset({"rabbitmq"})}


@dataclass
class Scene:
    """The targets of faults."""

    rig: Rig
    haste: Haste
    history: History
    say: Callable[[str], None]
    # What simulators are told to get wrong, by simulator.
    scripts: dict[str, dict[str, float]] = field(default_factory=dict)


Undo = Callable[[], None]


def _nothing() -> None:
    return


def _kill(scene: Scene, planned: Planned, _fault: Fault) -> Undo:
    scene.rig.services[planned.target].program.kill()
    return _nothing


def _freeze(scene: Scene, planned: Planned, _fault: Fault) -> Undo:
    program = scene.rig.services[planned.target].program
    program.pause()
    return program.resume


def _restart(scene: Scene, planned: Planned, _fault: Fault) -> Undo:
    scene.rig.restart(planned.target)
    scene.rig.ready(planned.target, _READY_WITHIN_S)
    return _nothing


def _roll_out(scene: Scene, planned: Planned, _fault: Fault) -> Undo:
    for name in SERVICES:
        if name.startswith(planned.target):
            scene.rig.restart(name)
            scene.rig.ready(name, _READY_WITHIN_S)
    return _nothing


def _promote(scene: Scene, planned: Planned, fault: Fault) -> Undo:
    databases = scene.rig.databases
    promotions.FAULTS[planned.detail](scene.rig)
    time.sleep(promotions.DETECTED_AFTER_S)
    promotions.take_over(scene.rig, fault)
    old = next(node for node in databases.nodes if node.name == fault.note)

    def whole_again() -> None:
        scene.rig.run(lambda: databases.rebuild(old))
        databases.move()

    whole_again()
    return _nothing


def _cut(scene: Scene, planned: Planned, _fault: Fault) -> Undo:
    proxy = scene.rig.proxies[planned.target]
    proxy.cut()
    return proxy.heal


def _reset(scene: Scene, planned: Planned, _fault: Fault) -> Undo:
    scene.rig.proxies[planned.target].reset()
    return _nothing


def _delay(scene: Scene, planned: Planned, _fault: Fault) -> Undo:
    proxy = scene.rig.proxies[planned.target]
    proxy.delay(planned.amount)
    return lambda: proxy.delay(0)


def _lag(scene: Scene, planned: Planned, _fault: Fault) -> Undo:
    """Slow down the stream to the standby that is read from."""
    upstream = scene.rig.databases.standbys[-1].upstream
    upstream.delay(planned.amount)
    return lambda: upstream.delay(0)


def _script(rules: Callable[[Planned], dict[str, float]]) -> "Begin":
    def begin(scene: Scene, planned: Planned, _fault: Fault) -> Undo:
        scene.rig.control(planned.target, "PUT", "faults", rules(planned))
        return lambda: scene.rig.control(planned.target, "PUT", "faults", {})

    return begin


def _fill(scene: Scene, planned: Planned, _fault: Fault) -> Undo:
    """Limit a queue to almost nothing, and slow its consumers down."""
    settings_before: dict[str, Any] = {}

    def lower(policy: str, rules: dict[str, Any]) -> dict[str, Any]:
        if not policy.endswith(f":{planned.target}"):
            return {}
        settings_before["max-length"] = rules["max-length"]
        return {"max-length": _FULL}

    def as_before(policy: str, _rules: dict[str, Any]) -> dict[str, Any]:
        return settings_before if policy.endswith(f":{planned.target}") else {}

    consumers = "notifier" if planned.target == "order-notifications" else "worker"
    frozen = [service.program for service in scene.rig.of_kind(consumers)]
    outages.change_policies(scene.rig, lower)  # may fail: nothing is frozen yet
    for program in frozen:
        program.pause()

    def undo() -> None:
        try:
            outages.change_policies(scene.rig, as_before)
        finally:
            for program in frozen:
                program.resume()

    return undo


def _overflow(scene: Scene, planned: Planned, fault: Fault) -> Undo:
    """Fill a queue whose consumers hold more messages than clients send while it lasts.

    Frozen consumers lose their connections, so that what they held goes back to the queue.
    """
    undo = _fill(scene, planned, fault)
    scene.rig.proxies["rabbitmq"].reset()
    return undo


def _clock(scene: Scene, planned: Planned, _fault: Fault) -> Undo:
    """Start a process whose clock is off."""
    environment = dict(scene.rig.services[planned.target].program.component.environment)
    scene.rig.restart(planned.target, {**environment, **faketime.environment(planned.amount)})
    return lambda: scene.rig.restart(planned.target, environment)


def _load(scene: Scene, planned: Planned, _fault: Fault) -> Undo:
    scene.haste.factor = planned.amount
    return lambda: setattr(scene.haste, "factor", 1.0)


def _crash(scene: Scene, planned: Planned, _fault: Fault) -> Undo:
    program = scene.rig.servers[planned.target]
    program.kill()
    return lambda: scene.rig.run(program.start)


def _failpoint(scene: Scene, planned: Planned, fault: Fault) -> Undo:
    point, _, action = planned.detail.partition(":")
    order = {"action": action, "nth": int(planned.amount), "sleep_s": SLEEP_S}
    armed = scene.rig.armed(planned.target, point)
    disarm = _armed([armed], order)

    def undo() -> None:
        disarm()
        acted = Path(f"{armed}{ACTED}")
        if acted.exists():
            fault.acted_s = acted.stat().st_ctime
            acted.unlink()

    return undo


def _dawdle(scene: Scene, planned: Planned, _fault: Fault) -> Undo:
    """Make all processes of a kind wait at their points now and then."""
    names = [name for name in SERVICES if name.startswith(planned.target)]
    order = {"action": DAWDLE, "share": planned.amount, "sleep_s": SLEEP_S}
    return _armed([scene.rig.armed(name, EVERYWHERE) for name in names], order)


def _armed(files: Sequence[Path], order: dict[str, Any]) -> Undo:
    """Arm points; return what disarms them."""
    for file in files:
        draft = file.with_suffix(".part")
        draft.write_bytes(msgspec.json.encode(order))
        draft.rename(file)

    def disarm() -> None:
        for file in files:
            file.unlink(missing_ok=True)

    return disarm


def _quiet(_scene: Scene, _planned: Planned, _fault: Fault) -> Undo:
    return _nothing


Begin = Callable[[Scene, Planned, Fault], Undo]
ACTIONS: Final[dict[str, Begin]] = {
    "kill": _kill,
    "freeze": _freeze,
    "restart": _restart,
    "roll-out": _roll_out,
    "promote": _promote,
    "cut": _cut,
    "reset": _reset,
    "delay": _delay,
    "slow": _script(lambda planned: {"latencyMs": int(planned.amount * 1000)}),
    "drop": _script(lambda planned: {"dropReplyRatio": planned.amount}),
    "errors": _script(lambda planned: {"errorRatio": planned.amount}),
    "fill": _fill,
    "overflow": _overflow,
    "clock": _clock,
    "load": _load,
    "crash": _crash,
    "lag": _lag,
    "failpoint": _failpoint,
    "dawdle": _dawdle,
    "quiet": _quiet,
}


class Conductor:
    """Injects a plan's faults at their times, each on a separate thread.

    A fault that took longer than planned, as a slow restart does, delays those that touch the same.
    """

    def __init__(self, scene: Scene, plan: Plan) -> None:
        self._scene, self._plan = scene, plan
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self.failures: list[str] = []

    def run(self) -> None:
        """Carry the plan out; returns when its time is over and every fault has ended."""
        began_s = time.monotonic()
        try:
            for planned in self._plan.faults:
                if self._stopping.wait(max(0.0, began_s + planned.at_s - time.monotonic())):
                    break
                self._scene.say(line(planned))
                thread = threading.Thread(target=self._do, args=(planned,), daemon=True)
                thread.start()
                self._threads.append(thread)
            self._stopping.wait(max(0.0, began_s + self._plan.length_s - time.monotonic()))
        except KeyboardInterrupt:
            self._stopping.set()  # the whole stack ends now, and with it every fault
            raise
        self.stop()

    def stop(self) -> None:
        """End every fault now, and wait until the servers are as they were."""
        self._stopping.set()
        until_s = time.monotonic() + _ENDED_WITHIN_S
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))
            if thread.is_alive():
                self.failures.append("a fault did not end in time")
        self._threads.clear()

    def _do(self, planned: Planned) -> None:
        with ExitStack() as stack:
            names = touched(planned) | _NEEDED.get(planned.kind, frozenset())
            for name in sorted(names):  # in one order: no two faults wait for each other
                stack.enter_context(self._locks[name])
            self._carry_out(planned)

    def _carry_out(self, planned: Planned) -> None:
        scene = self._scene
        fault = scene.history.fault(planned.kind, planned.target)
        if planned.detail:
            fault.note = planned.detail
        try:
            undo = ACTIONS[planned.kind](scene, planned, fault)
            try:
                self._stopping.wait(max(0.0, fault.began_s + planned.lasts_s - time.time()))
            finally:
                undo()
        except Exception as error:  # noqa: BLE001 a fault that cannot be done spoils the run
            self.failures.append(f"{planned.kind} {planned.target}: {error!r}"[:500])
        fault.ended_s = time.time()
