"""The components of the stack as data, one process each."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from signal import SIGTERM, Signals


class Stage(IntEnum):
    """Stages of the stop, from the highest down: clients end before their servers."""

    SERVER = 0
    SIMULATOR = 1
    CONSUMER = 2
    API = 3
    GATEWAY = 4


def nothing() -> None:
    """Do nothing; for components without preparation."""


def always_ready() -> bool:
    """Return True; for components without a readiness check."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One process: how to start it, when it is ready, how to end it.

    `prepare` runs before every start and is idempotent. `ready` is polled; False or an `OSError`
    means not yet. A `step` is a command that must exit with 0 before others start. `as_user` is a
    command prefix that drops root's rights. An `optional` component starts only by name, and its
    failure does not fail the stack.
    """

    name: str
    stage: Stage = Stage.SERVER
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    log: Path
    address: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    prepare: Callable[[], None] = nothing
    ready: Callable[[], bool] = always_ready
    ready_within_s: float = 30.0
    stop_signal: Signals = SIGTERM
    stop_within_s: float = 5.0
    step: bool = False
    optional: bool = False
    as_user: tuple[str, ...] = ()


def log_file(state: Path, name: str) -> Path:
    """Return the path of a component's log, below the state folder."""
    return state / "logs" / f"{name}.log"


def server_environment(state: Path) -> dict[str, str]:
    """Return a server's environment: only the path, and the mark that identifies leftovers."""
    path = os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    return {"PATH": f"{path}:/usr/sbin:/sbin", "LANG": "C.UTF-8", "DEVSTACK_STATE": str(state)}
