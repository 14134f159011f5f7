"""A door with TLS in front of a server that has none; its certificate can be replaced.

Both directions of a connection are on one event loop: OpenSSL takes no two threads at one of them.
"""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from devstack.certificates import Pair

T = TypeVar("T")

# How a client of PostgreSQL asks for TLS, and the server's yes.
_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
_YES = b"S"


class Front:
    """Passes what comes over TLS on to a port of this machine.

    `on_request`: TLS begins when the client has asked for it, as PostgreSQL's does.
    """

    def __init__(self, port: int, pair: Pair, *, on_request: bool = False) -> None:
        self.accepted = 0  # connections whose client took the certificate
        self._back = port
        self._open: set[asyncio.StreamWriter] = set()
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(*pair)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._do(
            asyncio.start_server(self._answer, "127.0.0.1", 0)
            if on_request
            else asyncio.start_server(self._pass_on, "127.0.0.1", 0, ssl=self._context)
        )
        self.port: int = self._server.sockets[0].getsockname()[1]

    def present(self, pair: Pair) -> None:
        """Show another certificate to those who connect from now on."""

        async def load() -> None:
            self._context.load_cert_chain(*pair)

        self._do(load())

    def drop(self) -> int:
        """End all connections, and tell how many there were."""

        async def end() -> int:
            count = len(self._open)
            for writer in self._open:
                writer.transport.abort()
            return count

        return self._do(end())

    def stop(self) -> None:
        """End all connections, and listen no more."""

        async def end() -> None:
            self._server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self._do(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            if await reader.readexactly(len(_SSL_REQUEST)) == _SSL_REQUEST:
                writer.write(_YES)
                await writer.start_tls(self._context)
                await self._pass_on(reader, writer)
        writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._open.add(writer)
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self._back)
        await asyncio.gather(_copy(reader, back_writer), _copy(back_reader, writer))
        self._open.discard(writer)


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while received := await source.read(65_536):
            sink.write(received)
            await sink.drain()
    except OSError:
        pass
    finally:
        sink.close()
