"""What the stack is made of: one process each, as data."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from signal import SIGTERM, Signals


class Stage(IntEnum):
    """Order of the stop, from the highest down: whoever asks ends before who answers."""

    SERVER = 0
    SIMULATOR = 1
    CONSUMER = 2
    API = 3
    GATEWAY = 4


def nothing() -> None:
    """Do nothing; for components without preparation."""


def always_ready() -> bool:
    """Say ready at once."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """Describe one process: how to start it, when it is ready, how to end it.

    `prepare` runs before every start and is idempotent. `ready` is polled; False or an `OSError`
    means not yet. `step` marks a command that must end with 0 before others may start. `as_user`
    is the command that drops root's rights, put in front. What is `optional` is not started with
    the rest but by name, and its failure is nobody else's.
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
    """Name the log of a component, below the state folder."""
    return state / "logs" / f"{name}.log"


def server_environment(state: Path) -> dict[str, str]:
    """Give a server nothing of ours but the path, and the mark by which leftovers are found."""
    path = os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    return {"PATH": f"{path}:/usr/sbin:/sbin", "LANG": "C.UTF-8", "DEVSTACK_STATE": str(state)}
