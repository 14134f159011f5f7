"""Faults that touch the same process stay apart, however long one of them takes."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from failover.history import History
from torture.faults import Conductor, Scene
from torture.plan import Plan, Planned
from torture.shoppers import Haste


class Process:
    """A process whose first fault ends only when it is let go."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.let_go = threading.Event()

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        if self.calls.count("resume") == 0:
            self.let_go.wait(60)
        self.calls.append("resume")


def test_a_fault_that_takes_longer_than_planned_delays_the_next_of_its_process(
    tmp_path: Path,
) -> None:
    process, others = Process(), Process()
    others.let_go.set()
    services = {
        "api-1": SimpleNamespace(program=process),
        "api-2": SimpleNamespace(program=others),
    }
    rig: Any = SimpleNamespace(services=services)
    scene = Scene(rig, Haste(), History(tmp_path), lambda _: None)
    freezes = [Planned(at_s, 0.01, "freeze", name) for at_s, name in
               ((0.0, "api-1"), (0.05, "api-1"), (0.1, "api-2"))]  # fmt: skip
    conductor = Conductor(scene, Plan(1, 0.3, 1, freezes))
    runner = threading.Thread(target=conductor.run)
    runner.start()
    while others.calls != ["pause", "resume"]:
        runner.join(0.01)
    assert process.calls == ["pause"]
    process.let_go.set()
    runner.join(60)
    assert process.calls == ["pause", "resume"] * 2
    assert conductor.failures == []
