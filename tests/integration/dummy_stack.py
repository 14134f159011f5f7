"""Run shell scripts under the real supervisor: `python dummy_stack.py STATE SCENARIO`."""

import os
import sys
from functools import partial
from pathlib import Path

from devstack import foreground, guardian
from devstack.component import Component, Stage, log_file
from devstack.report import ProgressReport

# Notes its name in the file `order` when it is asked to end.
POLITE = (
    'trap "echo {name} >> ../order; exit 0" TERM; echo {name} began; while :; do sleep 0.05; done'
)
# Leaves a process behind that has a session of its own, as a daemon does.
DAEMON = "setsid sleep 1000 & " + POLITE
FAILING = "printf %05000d 0; echo; echo the table orders does not exist; exit 3"

SCENARIOS: dict[str, list[tuple[str, Stage, str, tuple[str, ...]]]] = {
    "plain": [
        ("database", Stage.SERVER, DAEMON, ()),
        ("simulator", Stage.SIMULATOR, POLITE, ()),
        ("worker", Stage.CONSUMER, POLITE, ("database",)),
        ("api", Stage.API, POLITE, ("database",)),
        ("gateway", Stage.GATEWAY, POLITE, ("api",)),
    ],
    "failing": [
        ("database", Stage.SERVER, POLITE, ()),
        ("migrate", Stage.SERVER, FAILING, ("database",)),
        ("api", Stage.API, POLITE, ("migrate",)),
    ],
    "stubborn": [("database", Stage.SERVER, "trap '' TERM; while :; do sleep 0.05; done", ())],
    "taken": [("database", Stage.SERVER, POLITE, ())],
}


def components(state: Path, scenario: str) -> list[Component]:
    """Make the components of a scenario; one of them wants a port if DUMMY_PORT is set."""
    return [component(state, *row) for row in SCENARIOS[scenario]]


def component(
    state: Path, name: str, stage: Stage, script: str, needs: tuple[str, ...]
) -> Component:
    port = os.environ.get("DUMMY_PORT")
    return Component(
        name=name,
        stage=stage,
        argv=("sh", "-c", script.format(name=name)),
        environment={**os.environ, "DEVSTACK_STATE": str(state)},
        folder=state / name,
        log=log_file(state, name),
        ports={"DUMMY_PORT": int(port)} if port else {},
        needs=needs,
        prepare=partial((state / name).mkdir, parents=True, exist_ok=True),
        ready=lambda: f"{name} began" in log_file(state, name).read_text() or "trap ''" in script,
        stop_within_s=2,
        step=name == "migrate",
    )


def main() -> int:
    state, scenario = Path(sys.argv[1]), sys.argv[2]
    return guardian.guarded(
        lambda: foreground.run(
            state,
            lambda: components(state, scenario),
            ProgressReport(),
            lambda took_s: f"\nready in {took_s:.1f} s",
        )
    )


if __name__ == "__main__":
    sys.exit(main())
