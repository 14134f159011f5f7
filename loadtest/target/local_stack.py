"""A separate local stack, started with the `devstack` command; others may run beside it."""

import os
import secrets
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil

REPOSITORY: Final = Path(__file__).resolve().parents[2]
_GATEWAY_PORT: Final = 8080
# Away from `make up`; LOADTEST_PORT_OFFSET moves it elsewhere.
_PORT_OFFSET: Final = "1000"
# RabbitMQ's own; devstack's lies where the kernel picks ports for outgoing connections.
_MANAGEMENT_PORT: Final = 15672
_VERB_WITHIN_S: Final = 180
# Issuer and audience of the tokens of a stack of its own.
TOKEN_PARTY: Final = "loadtest"  # noqa: S105 a name
# A fault of seconds is to be survived within the run: what the services wait for is shortened.
_SETTINGS: Final = {
    "ORDERS_AUTH": "jwt",
    "ORDERS_AUTH_ISSUER": TOKEN_PARTY,
    "ORDERS_AUTH_AUDIENCE": TOKEN_PARTY,
    "ORDERS_AUTH_ALGORITHMS": "HS256",
    "ORDERS_LOG_LEVEL": "warning",
    "ORDERS_WORKER_STALLED_AFTER_S": "20",
    "ORDERS_WORKER_SWEEP_S": "2",
    "ORDERS_UPSTREAM_TRY_TIMEOUT_S": "1",
    "ORDERS_UPSTREAM_BACKOFF_BASE_S": "0.2",
    "ORDERS_UPSTREAM_BACKOFF_JITTER_S": "0.2",
    "ORDERS_UPSTREAM_BREAKER_RESET_S": "3",
}


class StackFailed(Exception):
    """A command of the local stack failed; the message has its output."""


class LocalStack:
    """A stack with a separate state folder, ports and key."""

    def __init__(self, state: Path) -> None:
        """Take the state folder; nothing of the caller's own services is taken over."""
        self.state = state
        self.key = secrets.token_urlsafe(32)
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("ORDERS_")
        }
        offset = os.environ.get("LOADTEST_PORT_OFFSET") or _PORT_OFFSET
        management = {"DEVSTACK_RABBITMQ_MANAGEMENT_PORT": str(_MANAGEMENT_PORT + int(offset))}
        self._environment = management | inherited | _SETTINGS | {
            "ORDERS_AUTH_KEY": self.key,
            "DEVSTACK_STATE": str(state),
            "DEVSTACK_PORT_OFFSET": offset,
            "DEVSTACK_TLS": "0",  # the load generators speak plain HTTP
            "PYTHONPATH": str(REPOSITORY / "services"),
        }  # fmt: skip
        self._wanted: dict[str, str] = {}
        self._runs = False
        port = os.environ.get("DEVSTACK_GATEWAY_PORT") or _GATEWAY_PORT + int(offset)
        self.gateway_url = f"http://127.0.0.1:{port}"

    def clear(self) -> None:
        """Remove the state of an earlier run. Raises StackFailed while another run holds it."""
        self._verb("clean-state")

    def start(self) -> None:
        """Start everything. Raises StackFailed."""
        self._runs = True  # set before the start, which may fail with processes running
        self._verb("start")

    def stop(self) -> None:
        """End everything. Raises StackFailed."""
        self._verb("stop")
        self._runs = False

    def adopt(self, settings: Mapping[str, str]) -> None:
        """Run with these settings in addition to our own; restart the stack if they differ."""
        if settings == self._wanted:
            return
        self._wanted = dict(settings)
        if self._runs:
            self.stop()
            self.start()

    def do(self, verb: str, component: str) -> None:
        """Do something to a component. Raises StackFailed."""
        if verb == "reload":
            os.kill(self._pid(component), signal.SIGHUP)
        else:
            self._verb(verb, component)

    def addresses(self) -> dict[str, str]:
        """Give the variables with the addresses of everything."""
        words = shlex.split(self._verb("environment"))
        return dict(word.split("=", 1) for word in words if word != "export")

    def memory_bytes(self) -> Counter[str]:
        """Add up the resident memory of each component's processes, found by their folders."""
        resident: Counter[str] = Counter()
        for process in psutil.process_iter():
            try:
                folder = Path(process.cwd())
                if folder.is_relative_to(self.state) and folder != self.state:
                    resident[folder.relative_to(self.state).parts[0]] += process.memory_info().rss
            except (psutil.Error, OSError):
                continue
        return resident

    def _pid(self, component: str) -> int:
        for line in self._verb("status").splitlines():
            name, _, pid, *_ = line.split()
            if name == component and pid.isdigit():
                return int(pid)
        raise StackFailed(f"{component} does not run")

    def _verb(self, *verb: str) -> str:
        try:
            process = subprocess.run(  # noqa: S603 our own command
                [sys.executable, "-m", "devstack", *verb], env=self._environment | self._wanted,
                capture_output=True, text=True, check=False, timeout=_VERB_WITHIN_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise StackFailed(f"devstack {' '.join(verb)} did not end") from error
        if process.returncode != 0:
            raise StackFailed(
                f"devstack {' '.join(verb)}: {(process.stderr or process.stdout).strip()}"
            )
        return process.stdout
