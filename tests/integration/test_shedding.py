"""The gateway's limits and its shedding, with real nginx and gunicorn."""

import fcntl
import select
import socket
import struct
import termios
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from devstack.ports import free_port
from devstack.program import Program
from devstack.servers import nginx
from gateway.capacity import capacity, container_memory_mib
from integration.serving import Served, eventually, request, serving
from machine_time import machine_time_s

IN_FLIGHT = 4
PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve one request at a time."""
    with serving(tmp_path_factory.mktemp("api"), workers=1) as server:
        yield server


@contextmanager
def gateway(state: Path, name: str, port: int, **limits: Any) -> Iterator[Program]:
    listen = f"127.0.0.1:{free_port()}"
    site = nginx.Site(state=state, listen=listen, api=f"127.0.0.1:{port}", name=name, **limits)
    program = Program(nginx.component(site))
    program.start()
    try:
        yield program
    finally:
        program.stop()


@pytest.fixture(scope="module")
def narrow(state: Path, api: Served) -> Iterator[str]:
    with gateway(state, "narrow", api.port, api_in_flight=IN_FLIGHT) as program:
        yield f"http://{program.component.address}"


def get(url: str) -> tuple[float, requests.Response]:
    started_s = machine_time_s()
    answer = requests.request("GET", url, timeout=30)
    return machine_time_s() - started_s, answer


def test_what_an_api_cannot_take_soon_is_refused_at_once(narrow: str) -> None:
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(get, [f"{narrow}/sleep?s=0.5"] * 24))
    answers_200 = [answer for _, answer in answers if answer.status_code == 200]
    shed = [(took_s, answer) for took_s, answer in answers if answer.status_code == 503]
    assert len(answers_200) + len(shed) == 24
    assert IN_FLIGHT <= len(answers_200) < 24 - IN_FLIGHT
    for took_s, answer in shed:
        assert took_s < 0.5 * IN_FLIGHT  # nobody waited behind those who were served
        assert answer.headers["Content-Type"] == PROBLEM
        assert answer.headers["Retry-After"] == "1"
        assert answer.json()["status"] == 503
    assert get(f"{narrow}/pid")[1].status_code == 200


def test_what_nobody_waits_for_is_not_worked_on(api: Served) -> None:
    count_before = api.counted()
    with api.connect() as busy:
        busy.sendall(request("GET", "/sleep?s=1"))
        eventually(lambda: _is_read(busy))
        for _ in range(20):
            with api.connect() as connection:
                connection.sendall(request("GET", "/count"))
        busy.recv(1000)
    assert api.get("/count")
    assert api.counted() == count_before + 1
    assert "http_server_abandoned_requests_total 20.0" in api.admin("/metrics")[1]


def _is_read(connection: socket.socket) -> bool:
    """Return whether the api has read what was sent."""
    unread = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0" * 4)
    return bool(struct.unpack("i", unread)[0] == 0)


MEMORY_MIB = 64
SLOW = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n" + b"x" * 30_000


def test_slow_bodies_are_limited_per_address_and_take_no_more_than_their_share(
    state: Path, api: Served
) -> None:
    limits = capacity(MEMORY_MIB)
    slow: list[socket.socket] = []
    with (
        gateway(state, "small", api.port, memory_mib=MEMORY_MIB) as program,
        ExitStack() as clients,
    ):
        url = f"http://{program.component.address}"
        assert get(f"{url}/pid")[1].status_code == 200
        # A worker that has just been forked still takes the memory that it holds idle.
        eventually(lambda: _are_idle(program))
        bytes_before = _allocated(program)
        for _ in range(2 * limits.requests_per_address):
            connection = socket.create_connection(
                ("127.0.0.1", int(url.rpartition(":")[2])), timeout=10
            )
            slow.append(clients.enter_context(connection))
            connection.sendall(SLOW)
        eventually(lambda: len(_answered(slow)) == limits.requests_per_address)
        assert all(b"429" in connection.recv(100) for connection in _answered(slow))
        assert _allocated(program) - bytes_before < limits.requests_per_address * 72 * 1024
        answer = get(f"{url}/pid")[1]
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        assert answer.headers["Content-Type"] == PROBLEM


def _answered(connections: list[socket.socket]) -> list[socket.socket]:
    ready, _, _ = select.select(connections, [], [], 0)
    return ready


def _allocated(program: Program) -> int:
    """Return the bytes that nginx's processes hold, without the files that they have mapped.

    The pages of a library count where they are used for the first time, in the midst of a test.
    """
    total = 0
    for pid in _processes(program):
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        [kib] = [row.split()[1] for row in rows if row.startswith("Anonymous:")]
        total += int(kib) * 1024
    return total


def _are_idle(program: Program) -> bool:
    """Return whether nginx's master and its two workers all wait for something to do."""
    stats = [Path(f"/proc/{pid}/stat").read_text() for pid in _processes(program)]
    return [stat.rpartition(")")[2].split()[0] for stat in stats] == ["S"] * 3


def _processes(program: Program) -> list[int]:
    master = int((Path(program.component.folder) / "nginx.pid").read_text())
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return [master, *map(int, children)]


@pytest.mark.parametrize("memory_mib", [64, 128, 256, 1024])
def test_what_is_allowed_fits_into_the_memory(memory_mib: int) -> None:
    limits = capacity(memory_mib)
    taken_kib = limits.connections * 6 + limits.requests * 72
    assert taken_kib <= (memory_mib - 48) * 1024
    assert limits.requests_per_address * 4 <= limits.requests


@pytest.mark.parametrize(("text", "mib"), [("134217728\n", 128), ("max\n", 128), ("", 128)])
def test_the_memory_is_the_containers(tmp_path: Path, text: str, mib: int) -> None:
    (tmp_path / "memory.max").write_text(text)
    assert container_memory_mib(tmp_path / "memory.max") == mib
    assert container_memory_mib(tmp_path / "nowhere") == 128
