"""Start tiny_api.py under gunicorn and talk to it, byte by byte where a test needs that."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from devstack.ports import free_port

PROGRAM = Path(__file__).with_name("tiny_api.py")
SERVICES = Path(__file__).parents[2] / "services"


def eventually(holds: Callable[[], object], within_s: float = 60.0) -> None:
    """Wait until `holds` is true; a broken connection counts as not yet."""
    deadline = time.monotonic() + within_s
    while True:
        with suppress(OSError, http.client.HTTPException):
            if holds():
                return
        assert time.monotonic() < deadline, f"not within {within_s:g} s"
        time.sleep(0.02)


class Served:
    """A running gunicorn master with its workers and its admin process."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", port: int, admin_port: int, log: Path
    ) -> None:
        self.process, self.port, self.admin_port, self.log = process, port, admin_port, log

    def children(self, name: str) -> set[int]:
        """Return the processes of that name that the master started."""
        master = self.process.pid
        listed = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        return {int(pid) for pid in listed if _comm(int(pid)) == name}

    @property
    def workers(self) -> set[int]:
        return self.children("orders-worker")

    def connect(self, **options: int) -> socket.socket:
        """Open a connection; `options` are set before: SO_… and TCP_… by name."""
        connection = socket.socket()
        for name, value in options.items():
            level = socket.IPPROTO_TCP if name.startswith("TCP_") else socket.SOL_SOCKET
            connection.setsockopt(level, getattr(socket, name), value)
        connection.settimeout(10)
        connection.connect(("127.0.0.1", self.port))
        return connection

    def get(self, target: str) -> str:
        return get(self.port, target)[1]

    def admin(self, target: str) -> tuple[int, str]:
        return get(self.admin_port, target)

    def counted(self, metric: str = "handled_total") -> float:
        """Return the sum of a metric without labels over all processes."""
        lines = self.admin("/metrics")[1].splitlines()
        return sum(float(line.split()[1]) for line in lines if line.startswith(f"{metric} "))

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


def get(port: int, target: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", target)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def request(method: str, target: str, *fields: str, body: bytes = b"") -> bytes:
    """Write a request down; fields are given whole, framing included."""
    head = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: test", *fields])
    return head.encode() + b"\r\n\r\n" + body


def read_all(connection: socket.socket) -> bytes:
    """Read until the other side closes; a reset ends it as well."""
    received = b""
    with suppress(ConnectionResetError):
        while block := connection.recv(65_536):
            received += block
    return received


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one final answer; interim ones are skipped."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    fields = {name.lower(): value for name, value in answer.getheaders()}
    return answer.status, fields, answer.read()


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[Served]:
    """Serve with these settings on free ports; at the end nothing is left running."""
    port, admin_port = free_port(), free_port()
    api = {"host": "127.0.0.1", "port": port, "workers": 1, "timeout_s": 30, **settings}
    admin = {"host": "127.0.0.1", "port": admin_port}
    log = folder / f"gunicorn-{port}.log"
    process = start(api, admin, log)
    server = Served(process, port, admin_port, log)
    try:
        eventually(lambda: server.admin("/startupz")[0] == 200)
        yield server
    finally:
        _end(process)


def start(api: dict[str, Any], admin: dict[str, Any], log: Path) -> "subprocess.Popen[bytes]":
    """Run tiny_api.py with these settings; its output goes to `log`."""
    arguments = [msgspec.json.encode(text).decode() for text in (api, admin)]
    refuse = str(log.with_name("refuse"))
    environ = os.environ | {"PYTHONPATH": str(SERVICES), "TINY_API_REFUSE": refuse}
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, PROGRAM, *arguments], env=environ, stdout=output, stderr=output
        )


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill all but the admin process: it sees the master gone, tidies up and ends."""
    children = {int(pid): _comm(int(pid)) for pid in _children(process.pid)}
    process.kill()
    process.wait(60)
    for pid, name in children.items():
        with suppress(ProcessLookupError):
            if name != "orders-admin":
                os.kill(pid, signal.SIGKILL)
    eventually(lambda: not any(map(is_running, children)))


def _children(pid: int) -> list[str]:
    with suppress(OSError):
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return []


def _comm(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def is_running(pid: int) -> bool:
    """Return whether the process exists and is no zombie."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
