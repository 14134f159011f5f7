"""A stand-in for Erlang's epmd that leads a node's connections to its peers through proxies.

Each node asks a mapper of its own, so that each link between two nodes can be cut by itself. The
protocol is that of Erlang's distribution; only what nodes send is understood.
"""

import contextlib
import secrets
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

HOST: Final = "127.0.0.1"
_REGISTER, _WHERE, _NAMES = 120, 122, 110
_REGISTERED, _FOUND = 118, 119
_NODE_TYPE: Final = 77  # an ordinary node, not a hidden one
_NEWEST, _OLDEST = 6, 5

Ports = dict[str, int]  # of all nodes, by the part of the name before the @


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, ports: Ports, route: Callable[[str, int], int]) -> None:
        self.ports, self.way = ports, route
        super().__init__((HOST, port), _Request)


class _Request(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        with contextlib.suppress(OSError, struct.error):
            (length,) = struct.unpack(">H", self.rfile.read(2))
            kind, *arguments = self.rfile.read(length)
            body = bytes(arguments)
            if kind == _REGISTER:
                self._register(body)
            elif kind == _WHERE:
                self._where(body.decode())
            elif kind == _NAMES:
                self._names()

    def _register(self, body: bytes) -> None:
        """Keep a node's port for as long as it stays connected, as a node that lives does."""
        (port,) = struct.unpack(">H", body[:2])
        (length,) = struct.unpack(">H", body[8:10])
        name = body[10 : 10 + length].decode()
        self.server.ports[name] = port
        self.wfile.write(struct.pack(">BBI", _REGISTERED, 0, secrets.randbelow(2**31) + 4))
        try:
            self.rfile.read(1)
        finally:
            if self.server.ports.get(name) == port:
                del self.server.ports[name]

    def _where(self, name: str) -> None:
        port = self.server.ports.get(name)
        if port is None:
            self.wfile.write(struct.pack(">BB", _FOUND, 1))
            return
        encoded = name.encode()
        self.wfile.write(
            struct.pack(
                ">BBHBBHHH", _FOUND, 0, self.server.way(name, port), _NODE_TYPE, 0,
                _NEWEST, _OLDEST, len(encoded),
            ) + encoded + struct.pack(">H", 0)
        )  # fmt: skip

    def _names(self) -> None:
        lines = "".join(f"name {name} at port {port}\n" for name, port in self.server.ports.items())
        own = self.server.server_address[1]
        self.wfile.write(struct.pack(">I", int(own)) + lines.encode())


@contextmanager
def mapper(port: int, ports: Ports, route: Callable[[str, int], int]) -> Iterator[None]:
    """Answer on `port`; `way` says through which port a node of a name and port is reached."""
    with _Server(port, ports, route) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
