"""The API's port, whose certificate can be replaced without closing it."""

import asyncio
import os
import socket
import ssl
from typing import Final

from aiohttp import web

from orderservice_operator.external_metrics import front_proxy
from orderservice_operator.external_metrics.certificates import CertificateAndKey
from orderservice_operator.external_metrics.front_proxy import FrontProxy

_BACKLOG: Final = 128
_JUST_ACCEPTED_S: Final = 0.2


class Listener:
    """Listens once it has a certificate. Open connections keep the old one.

    The socket stays bound, so there is no moment without a listener.
    """

    def __init__(self, application: web.Application, host: str, port: int) -> None:
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        self._address = (host, port)
        self._socket: socket.socket | None = None
        self._accepting: tuple[web.SockSite, socket.socket] | None = None
        self._shown: tuple[CertificateAndKey, FrontProxy] | None = None

    @property
    def listens(self) -> bool:
        """Whether the server accepts connections."""
        return self._accepting is not None

    async def show(self, pair: CertificateAndKey, proxy: FrontProxy) -> bool:
        """Use a certificate and an authority of callers from now on; return True if one is new."""
        if self._shown == (pair, proxy):
            return False
        if self._socket is None:
            await self._runner.setup()
            self._socket = socket.create_server(self._address, backlog=_BACKLOG)
        old = self._accepting
        duplicate = self._socket.dup()
        site = web.SockSite(self._runner, duplicate, ssl_context=_context(pair, proxy))
        await site.start()
        self._accepting, self._shown = (site, duplicate), (pair, proxy)
        if old is not None:
            await _end(*old)
        return True

    async def close(self) -> None:
        """Answer the requests in progress, then end."""
        await self._runner.cleanup()
        if self._socket is not None:
            self._socket.close()


async def _end(site: web.SockSite, accepting: socket.socket) -> None:
    """Stop accepting, then close: closing at once would drop connections just accepted."""
    asyncio.get_running_loop().remove_reader(accepting.fileno())
    await asyncio.sleep(_JUST_ACCEPTED_S)
    await site.stop()


def _context(pair: CertificateAndKey, proxy: FrontProxy) -> ssl.SSLContext:
    """Pass the key to OpenSSL, which reads only files, in a file that is never on a disk."""
    descriptor = os.memfd_create("key")
    try:
        os.write(descriptor, (pair.certificate + pair.key).encode())
        return front_proxy.tls(proxy, f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
