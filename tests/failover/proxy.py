"""A TCP proxy that can cut, freeze or delay connections, or lead them to another port.

All proxies of a run share one event loop in a thread of their own. The verbs may be called from any
thread, and have taken effect when they return.
"""

import asyncio
import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

HOST: Final = "127.0.0.1"
_CHUNK_BYTES: Final = 65_536
_RESET: Final = struct.pack("ii", 1, 0)  # linger on, 0 s: closing sends RST instead of FIN


class Link:
    """One client's connection and the one made for it to the target."""

    def __init__(self, *, flowing: bool) -> None:
        self.flowing = asyncio.Event()
        self.writers: list[asyncio.StreamWriter] = []
        if flowing:
            self.flowing.set()

    def add(self, writer: asyncio.StreamWriter) -> None:
        """Keep one end, so that it can be reset."""
        self.writers.append(writer)

    def reset(self) -> None:
        """End both connections as a host that lost its state would."""
        for writer in self.writers:
            with contextlib.suppress(OSError, AttributeError):
                connection = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()


class Proxy:
    """Listen on `port` and pass bytes on to a port of this machine."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, listener: socket.socket, target: int
    ) -> None:
        self.port: int = listener.getsockname()[1]
        self._loop, self._listener = loop, listener
        self._targets = itertools.cycle((target,))
        self._refusing = self._frozen = False
        self._delay_s = 0.0
        self._links: set[Link] = set()
        self._server: asyncio.Server | None = None

    def cut(self) -> None:
        """Reset every connection and refuse new ones until `heal`."""
        self._do(self._cut)

    def reset(self) -> None:
        """Reset every connection; new ones are welcome."""
        self._do(self._reset)

    def freeze(self) -> None:
        """Pass no bytes, on new connections either: a network that drops packets."""
        self._do(self._freeze)

    def heal(self) -> None:
        """Take connections again and let the held bytes pass."""
        self._do(self._heal)

    def point(self, *targets: int) -> None:
        """Lead new connections elsewhere, as a moved address does; old ones stay as they are.

        Several ports take turns; none refuses new connections. A connection that is frozen remains
        so, because its client does not learn that the address moved.
        """
        self._do(lambda: self._point(targets))

    def lead(self, target: int) -> None:
        """Lead new connections elsewhere, and leave everything else as it is."""
        self._do(lambda: setattr(self, "_targets", itertools.cycle((target,))))

    def delay(self, seconds: float) -> None:
        """Delay every chunk by this time, in both directions; 0 ends it."""
        self._do(lambda: setattr(self, "_delay_s", seconds))

    async def serve(self) -> None:
        """Begin to listen (on the loop)."""
        self._server = await asyncio.start_server(self._accept, sock=self._listener)

    def _do(self, verb: Callable[[], None]) -> None:
        end = threading.Event()

        def run() -> None:
            verb()
            end.set()

        self._loop.call_soon_threadsafe(run)
        assert end.wait(10), "the proxies' loop hangs"

    def _cut(self) -> None:
        self._refusing = True
        self._reset()

    def _reset(self) -> None:
        for link in self._links:
            link.reset()

    def _freeze(self) -> None:
        self._frozen = True
        for link in self._links:
            link.flowing.clear()

    def _heal(self) -> None:
        self._refusing = self._frozen = False
        for link in self._links:
            link.flowing.set()

    def _point(self, targets: Sequence[int]) -> None:
        self._targets = itertools.cycle(targets)
        self._refusing, self._frozen = not targets, False

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(flowing=not self._frozen)
        link.add(writer)
        self._links.add(link)
        try:
            await self._serve(link, reader, writer)
        except OSError:
            link.reset()
        except asyncio.CancelledError:
            return  # the end of the run; asyncio's own callback would print it otherwise
        finally:
            self._links.discard(link)
            for end in link.writers:
                end.close()

    async def _serve(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._refusing:
            link.reset()
            return
        await link.flowing.wait()
        far_reader, far_writer = await asyncio.open_connection(HOST, next(self._targets))
        link.add(far_writer)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pump(link, reader, far_writer))
            group.create_task(self._pump(link, far_reader, writer))

    async def _pump(
        self, link: Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter
    ) -> None:
        try:
            while chunk := await source.read(_CHUNK_BYTES):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                await link.flowing.wait()
                sink.write(chunk)
                await sink.drain()
            await link.flowing.wait()
            sink.write_eof()
        except (OSError, RuntimeError):
            if link.flowing.is_set():  # a host that nobody can reach cannot say that it ended
                link.reset()


class Proxies:
    """The loop that all proxies of a run share."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()

    def to(self, target: int) -> Proxy:
        """Make a proxy to a port of this machine; no server needs to listen there yet."""
        listener = socket.create_server((HOST, 0))
        proxy = Proxy(self._loop, listener, target)
        asyncio.run_coroutine_threadsafe(proxy.serve(), self._loop).result(10)
        return proxy

    def close(self) -> None:
        """End the loop and with it every connection."""
        asyncio.run_coroutine_threadsafe(self._cancel(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _cancel(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def proxies() -> Iterator[Proxies]:
    """Give the proxies of a run; end them with the block."""
    group = Proxies()
    try:
        yield group
    finally:
        group.close()
