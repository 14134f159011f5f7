"""TLS to Redis with one context for all connections, until one of its files changes.

redis-py makes a context for each connection, and reads all CAs for it. With the system's CAs this
takes 20 ms, and a whole call may take 50 ms.
"""

import os
import socket
import ssl
from typing import Any, Final, NamedTuple

from redis.connection import SSLConnection


class _Stamp(NamedTuple):
    """Version of a file or folder, also behind a symbolic link; zeros if it does not exist."""

    modified_ns: int
    inode: int
    size: int


_ABSENT: Final = _Stamp(0, 0, 0)
_Stamps = tuple[_Stamp, ...]


class KeptContext:
    """The context of the last connection that was verified; threads share it."""

    def __init__(self) -> None:
        self._kept: tuple[_Stamps, ssl.SSLContext] | None = None

    def get(self, stamps: _Stamps) -> ssl.SSLContext | None:
        """Return the context if its files have not changed."""
        entry = self._kept
        return entry[1] if entry is not None and entry[0] == stamps else None

    def keep(self, stamps: _Stamps, context: ssl.SSLContext) -> None:
        """Keep a context; `stamps` were taken from its files before it was made."""
        self._kept = stamps, context


class TlsConnection(SSLConnection):
    """redis-py's TLS connection; all with the same settings share a context."""

    def __init__(self, *, context_cache: KeptContext, **arguments: Any) -> None:
        """Take redis-py's arguments, and the shared context."""
        super().__init__(**arguments)
        self._context_cache = context_cache

    def _wrap_socket_with_ssl(self, sock: socket.socket) -> ssl.SSLSocket:
        """Wrap as redis-py does. Raises OSError, also if a file or the certificate is refused."""
        default_paths = (
            ssl.get_default_verify_paths()
        )  # uses SSL_CERT_FILE and SSL_CERT_DIR, if set
        files = (self.certfile, self.keyfile, self.ca_certs, self.ca_path)
        stamps = tuple(
            _stamp(file) for file in (*files, default_paths.cafile, default_paths.capath)
        )
        context = self._context_cache.get(stamps)
        if context is not None:
            return context.wrap_socket(sock, server_hostname=self.host)
        tls_socket: ssl.SSLSocket = super()._wrap_socket_with_ssl(sock)  # type: ignore[no-untyped-call]
        # redis-py checks OCSP itself, outside the context.
        if not (self.ssl_validate_ocsp or self.ssl_validate_ocsp_stapled):
            self._context_cache.keep(stamps, tls_socket.context)
        return tls_socket


def _stamp(file: str | None) -> _Stamp:
    if file is None:
        return _ABSENT
    try:
        status = os.stat(file)  # noqa: PTH116 half the time of Path.stat
    except OSError:
        return _ABSENT
    return _Stamp(status.st_mtime_ns, status.st_ino, status.st_size)
