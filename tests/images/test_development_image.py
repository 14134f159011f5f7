"""The development image: sources replaced in a running, read-only container, and a debugger."""

import io
import json
import socket
import tarfile
import time
from typing import Any

from devloop.reloading import SOURCES
from devstack.ports import free_port
from images.containers import Container, running, wait_for

STARTED = "process.started"
WITHIN_S = 60.0


def archive(path: str, content: bytes) -> bytes:
    """Pack a file as skaffold does: by its whole path."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo(path)
        entry.size, entry.mode = len(content), 0o644
        tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def replace(container: Container, path: str, content: str) -> None:
    """Copy a file into a container, by the command that skaffold uses."""
    unpack = ("tar", "xmf", "-", "-C", "/", "--no-same-owner")
    container.execute(*unpack, stdin=archive(path, content.encode()))


def relay(servers: dict[str, str], **fields: str) -> dict[str, str]:
    port = {"ORDERS_ADMIN_HOST": "127.0.0.1", "ORDERS_ADMIN_PORT": str(free_port())}
    return servers | port | fields


def test_a_process_starts_anew_with_the_sources_that_were_replaced(
    development_image: str, migrated: dict[str, str]
) -> None:
    environ = relay(migrated)
    with running(development_image, "orders", "relay", environ=environ) as container:
        wait_for(container, STARTED)
        path = f"{SOURCES}/orders/relay/__init__.py"
        text = container.execute("cat", path) + 'print("replaced", flush=True)\n'
        replace(container, path.lstrip("/"), text)
        wait_for(container, "replaced")
        started = container.log.count(STARTED)
        end = time.monotonic() + WITHIN_S
        while container.log.count(STARTED) == started == 1:
            assert time.monotonic() < end, container.log
            time.sleep(0.1)
        assert container.stop() == 0


def test_a_debugger_can_attach(development_image: str, migrated: dict[str, str]) -> None:
    port = free_port()
    environ = relay(migrated, DEVLOOP_DEBUG_PORT=str(port))
    with running(development_image, "orders", "relay", environ=environ) as container:
        wait_for(container, STARTED)
        assert greeting(port)["body"]["supportsConfigurationDoneRequest"]
        assert container.stop() == 0


def greeting(port: int) -> dict[str, Any]:
    """Begin to speak the Debug Adapter Protocol; return the answer to `initialize`."""
    arguments = {"adapterID": "test"}
    body = json.dumps(
        {"seq": 1, "type": "request", "command": "initialize", "arguments": arguments}
    ).encode()
    with socket.create_connection(("127.0.0.1", port), WITHIN_S) as connection:
        connection.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        file = connection.makefile("rb")
        while True:
            length = int(file.readline().split(b":")[1])
            file.readline()
            message: dict[str, Any] = json.loads(file.read(length))
            if message.get("command") == "initialize":
                return message
