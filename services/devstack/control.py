"""Requests to a running stack: one JSON line to its socket, one line back."""

import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

Handle = Callable[[dict[str, str]], dict[str, Any]]


class NotRunning(Exception):
    """Start the stack first: `make start`."""


class RequestRefused(Exception):
    """The running stack refused the request, for the reason in the message."""


@contextmanager
def serving(state: Path, handle: Handle) -> Iterator[None]:
    """Answer requests on the socket in the state folder."""
    (state / "control").unlink(missing_ok=True)
    with short_path(state) as folder:
        server = socketserver.ThreadingUnixStreamServer(f"{folder}/control", handler(handle))
    (state / "control").chmod(0o600)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        (state / "control").unlink(missing_ok=True)


def handler(handle: Handle) -> type[socketserver.StreamRequestHandler]:
    """Return the handler class for socketserver."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            try:
                answer = handle(msgspec.json.decode(self.rfile.readline(), type=dict[str, str]))
            except Exception as error:  # noqa: BLE001 - the client gets the error, and the stack keeps running
                answer = {"error": str(error)}
            self.wfile.write(msgspec.json.encode(answer) + b"\n")

    return Handler


def ask(state: Path, **request: str) -> dict[str, Any]:
    """Send a request and return the answer. Raises: NotRunning, RequestRefused."""
    with short_path(state) as folder, socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        try:
            connection.connect(f"{folder}/control")
        except (FileNotFoundError, ConnectionRefusedError):
            message = f"no stack runs in {state}: `make start` or `make up` starts one"
            raise NotRunning(message) from None
        connection.sendall(msgspec.json.encode(request) + b"\n")
        answer: dict[str, Any] = msgspec.json.decode(connection.makefile("rb").readline())
    if "error" in answer:
        raise RequestRefused(answer["error"])
    return answer


@contextmanager
def short_path(folder: Path) -> Iterator[str]:
    """Yield a short name for a folder: a socket's path may not be longer than 107 characters."""
    if not folder.is_dir():
        message = f"no stack runs in {folder}: there is no such folder"
        raise NotRunning(message)
    descriptor = os.open(folder, os.O_PATH)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
