"""The errors for a port that a server cannot have."""

import os
import random
import socket
import subprocess
import sys
from pathlib import Path

from devstack import ports
from integration.serving import eventually

SERVICES = Path(__file__).parents[2] / "services"
PROGRAM = """
import random
from devstack import ports
random.seed(1)
print(*(ports.free_port() for _ in range(50)))
"""


def own_address() -> tuple[str, int]:
    """Reserve a port; an outgoing connection of another process may use the same one."""
    return "127.0.0.1", ports.free_port()


def test_a_server_is_named() -> None:
    with socket.create_server(own_address()) as server:
        port = server.getsockname()[1]
        assert ports.busy(port)
        assert f"(process {os.getpid()})" in ports.holder(port)


def test_a_connection_that_begins_at_the_port_is_named() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), source_address=own_address()) as client,
    ):
        port = client.getsockname()[1]
        assert ports.busy(port)
        assert ports.holder(port).startswith("a connection of ")
        assert f"(process {os.getpid()})" in ports.holder(port)


def test_a_closed_connection_is_said_to_be_over_soon() -> None:
    """Linux keeps the port of the side that closed first, from servers too."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname(), source_address=own_address())
        port = client.getsockname()[1]
        connection, _ = server.accept()
        client.close()
        assert connection.recv(1) == b""
        connection.close()
        assert ports.busy(port)
        # On a busy machine the kernel takes up the other side's end a moment later.
        eventually(lambda: "TIME-WAIT" in ports.holder(port))


def test_what_a_server_left_behind_keeps_no_server_away() -> None:
    """The side that closed first is the server's, which allowed to use its port again."""
    with socket.create_server(own_address()) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(server.getsockname())
        connection, _ = server.accept()
        connection.close()
        assert client.recv(1) == b""
        client.close()
    assert not ports.busy(port)


def test_no_other_process_is_given_a_reserved_port() -> None:
    """Both draw the same numbers; no server listens on any of the ports."""
    state = random.getstate()
    random.seed(1)
    reserved = {ports.free_port() for _ in range(50)}
    random.setstate(state)
    output = subprocess.check_output(
        [sys.executable, "-c", PROGRAM], env={**os.environ, "PYTHONPATH": str(SERVICES)}, text=True
    )
    assert reserved.isdisjoint(map(int, output.split()))
