"""The port of the API: its certificate can be replaced while it listens."""

import asyncio
import os
import socket
import ssl
from typing import Final

from aiohttp import web

from orderservice_operator.external_metrics import front_proxy
from orderservice_operator.external_metrics.certificates import Pair
from orderservice_operator.external_metrics.front_proxy import FrontProxy

_BACKLOG: Final = 128
_JUST_ACCEPTED_S: Final = 0.2


class Listener:
    """Listens once it is told what with. Connections that are open stay as they are.

    The socket stays bound: there is no moment in which nobody listens.
    """

    def __init__(self, application: web.Application, host: str, port: int) -> None:
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        self._place = (host, port)
        self._socket: socket.socket | None = None
        self._accepting: tuple[web.SockSite, socket.socket] | None = None
        self._shown: tuple[Pair, FrontProxy] | None = None

    @property
    def listens(self) -> bool:
        """Whether the server accepts connections."""
        return self._accepting is not None

    async def show(self, pair: Pair, proxy: FrontProxy) -> bool:
        """Use a certificate and an authority of callers from now on; tell whether they are new."""
        if self._shown == (pair, proxy):
            return False
        if self._socket is None:
            await self._runner.setup()
            self._socket = socket.create_server(self._place, backlog=_BACKLOG)
        old = self._accepting
        twin = self._socket.dup()
        site = web.SockSite(self._runner, twin, ssl_context=_context(pair, proxy))
        await site.start()
        self._accepting, self._shown = (site, twin), (pair, proxy)
        if old is not None:
            await _end(*old)
        return True

    async def close(self) -> None:
        """Answer what has begun, then end."""
        await self._runner.cleanup()
        if self._socket is not None:
            self._socket.close()


async def _end(site: web.SockSite, accepting: socket.socket) -> None:
    """Stop accepting, and only then close: a server that is closed drops what it just accepted."""
    asyncio.get_running_loop().remove_reader(accepting.fileno())
    await asyncio.sleep(_JUST_ACCEPTED_S)
    await site.stop()


def _context(pair: Pair, proxy: FrontProxy) -> ssl.SSLContext:
    """Hand the key over in a file that never is on a disk: OpenSSL reads only files."""
    descriptor = os.memfd_create("key")
    try:
        os.write(descriptor, (pair.certificate + pair.key).encode())
        return front_proxy.tls(proxy, f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
