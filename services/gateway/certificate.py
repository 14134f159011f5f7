"""The gateway's certificate: checked before nginx gets it, and reloaded when its files change."""

import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

# Authorities renew days before the end; kubelets show a changed Secret within a minute or two.
_EVERY_S: Final = 2.0


class Pair(NamedTuple):
    """The files of a certificate with its chain and of its key, in PEM."""

    certificate: Path
    key: Path


class Unusable(Exception):
    """Put a certificate and its key there, in PEM and without a passphrase; the text says why."""


def check(pair: Pair) -> None:
    """Raise Unusable for what nginx could not serve with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a passphrase OpenSSL would ask for one at the terminal.
        context.load_cert_chain(pair.certificate, pair.key, password="")
    except ssl.SSLError:
        raise Unusable(
            "the files hold no certificate with its key, in PEM and without a passphrase"
        ) from None
    except OSError as error:
        raise Unusable(f"a file cannot be read ({error.strerror})") from None


def follow(pair: Pair, reload: Callable[[], None], every_s: float = _EVERY_S) -> None:
    """Call `reload` after each change of the files, once they can be used; never returns.

    While they cannot, perhaps because only one of them was replaced yet, nginx keeps what it has.
    """
    renewal = Renewal(pair, reload)
    while True:
        time.sleep(every_s)
        renewal.check_for_change()


class Renewal:
    """The state of the files at the last check."""

    def __init__(self, pair: Pair, reload: Callable[[], None]) -> None:
        self._pair, self._reload = pair, reload
        self._version = _version(pair)

    def check_for_change(self) -> None:
        """Reload if the files changed."""
        # Before they are read: what changes in between is seen by the next check.
        version = _version(self._pair)
        if version == self._version:
            return
        self._version = version
        try:
            check(self._pair)
        except Unusable as error:
            sys.stderr.write(f"gateway: the previous certificate stays in use: {error}\n")
            return
        sys.stderr.write("gateway: the certificate was renewed\n")
        self._reload()


def _version(pair: Pair) -> tuple[tuple[int, int, int] | None, ...]:
    """Return what changes with the files; Kubernetes replaces a link to their folder."""
    return tuple(_version_of(file) for file in pair)


def _version_of(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
