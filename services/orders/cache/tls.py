"""TLS to Redis with one context for all connections, until a file that it was made of changes.

redis-py makes a context for each connection, and reads all authorities for it: 20 ms for those of a
system, of the 50 ms that a call has.
"""

import os
import socket
import ssl
from typing import Any, Final, NamedTuple

from redis.connection import SSLConnection


class _Stamp(NamedTuple):
    """What changes with a file or folder, also behind a link; zeros where there is none."""

    modified_ns: int
    inode: int
    size: int


_ABSENT: Final = _Stamp(0, 0, 0)
_Stamps = tuple[_Stamp, ...]


class KeptContext:
    """The context of the last connection that was verified; threads share it."""

    def __init__(self) -> None:
        self._kept: tuple[_Stamps, ssl.SSLContext] | None = None

    def of(self, stamps: _Stamps) -> ssl.SSLContext | None:
        """Return the context if the files are those that it was made of."""
        stored = self._kept
        return stored[1] if stored is not None and stored[0] == stamps else None

    def keep(self, stamps: _Stamps, context: ssl.SSLContext) -> None:
        """Keep a context; `stamps` are of the files as they were before it was made."""
        self._kept = stamps, context


class TlsConnection(SSLConnection):
    """A connection of redis-py's that shares its context with others of the same settings."""

    def __init__(self, *, context_cache: KeptContext, **arguments: Any) -> None:
        """Take what redis-py takes, and the context of the same settings."""
        super().__init__(**arguments)
        self._context_cache = context_cache

    def _wrap_socket_with_ssl(self, sock: socket.socket) -> ssl.SSLSocket:
        """Wrap as redis-py does. Raises OSError, also where a file or the server is refused."""
        trusted = ssl.get_default_verify_paths()  # of SSL_CERT_FILE and SSL_CERT_DIR, if set
        own = (self.certfile, self.keyfile, self.ca_certs, self.ca_path)
        stamps = tuple(_stamp(file) for file in (*own, trusted.cafile, trusted.capath))
        context = self._context_cache.of(stamps)
        if context is not None:
            return context.wrap_socket(sock, server_hostname=self.host)
        wrapped: ssl.SSLSocket = super()._wrap_socket_with_ssl(sock)  # type: ignore[no-untyped-call]
        # OCSP is asked by redis-py, behind the context.
        if not (self.ssl_validate_ocsp or self.ssl_validate_ocsp_stapled):
            self._context_cache.keep(stamps, wrapped.context)
        return wrapped


def _stamp(file: str | None) -> _Stamp:
    if file is None:
        return _ABSENT
    try:
        status = os.stat(file)  # noqa: PTH116 half the time of Path.stat
    except OSError:
        return _ABSENT
    return _Stamp(status.st_mtime_ns, status.st_ino, status.st_size)
