"""Our credentials for upstreams: a bearer token and a certificate, in files that may change."""

import os
import re
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

import structlog
from urllib3.util.ssl_ import create_urllib3_context

from orders.errors import SettingError
from orders.settings import NotificationSettings, UpstreamSettings, variable

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1

_Version = tuple[int, int, int]

_log = structlog.get_logger()


class BearerToken:
    """The token in a file, read again by the first request after the file changed. Thread-safe.

    If the new file cannot be read or holds no token (it may be half written), the previous token
    stays in use.
    """

    def __init__(self, path: str, name: str) -> None:
        """Read the file. Raises SettingError, which names the setting and not the contents."""
        self._path, self._name = Path(path), name
        self._lock = threading.Lock()
        try:
            self._version = self._read_version()
            self._fields = self._read()
        except (OSError, ValueError) as error:
            raise SettingError(f"{name} is wrong: {_reason(error)}") from error

    @property
    def fields(self) -> Mapping[str, str]:
        """The header fields with the current token."""
        try:
            version = self._read_version()
        except OSError as error:
            self._keep((0, 0, 0), error)
            return self._fields
        if version != self._version:
            self._renew(version)
        return self._fields

    def _read_version(self) -> _Version:
        """Return time, inode and size of the file; they change behind Kubernetes' symlinks, too."""
        status = os.stat(self._path)  # noqa: PTH116 half the time of Path.stat, for every request
        return status.st_mtime_ns, status.st_ino, status.st_size

    def _read(self) -> Mapping[str, str]:
        token = self._path.read_text("ascii").strip()
        if not _TOKEN.fullmatch(token):
            raise ValueError("the file holds no bearer token")
        return {"Authorization": f"Bearer {token}"}

    def _renew(self, version: _Version) -> None:
        try:
            fields = self._read()
        except (OSError, ValueError) as error:
            self._keep(version, error)
            return
        with self._lock:
            self._version, self._fields = version, fields
        _log.info("upstream.token_renewed", setting=self._name)

    def _keep(self, version: _Version, error: Exception) -> None:
        """Keep the previous token, and log it once for each version of the file."""
        with self._lock:
            is_known, self._version = self._version == version, version
        if not is_known:
            _log.warning("upstream.token_not_renewed", setting=self._name, reason=_reason(error))


class ClientCertificate:
    """A certificate and its key, read again for each new connection. Thread-safe.

    If the new files cannot be read, or do not match because only one was replaced so far, the
    previous pair stays in use.
    """

    def __init__(self, certificate: str, key: str, name: str) -> None:
        """Read the files. Raises SettingError, which names the setting and not the contents."""
        self._certificate, self._key, self._name = certificate, key, name
        self._refused = False
        try:
            self._context = self._read()
        except OSError as error:
            raise SettingError(f"{name} is wrong: {_reason_of_pair(error)}") from error

    def context(self) -> ssl.SSLContext:
        """Return a context with the certificate, for a new connection. The caller sets the CAs."""
        try:
            self._context, self._refused = self._read(), False
        except OSError as error:
            if not self._refused:
                _log.warning(
                    "upstream.certificate_not_renewed",
                    setting=self._name,
                    reason=_reason_of_pair(error),
                )
            self._refused = True
        return self._context

    def _read(self) -> ssl.SSLContext:
        context = create_urllib3_context()
        # Without a passphrase OpenSSL would ask for one at the terminal.
        context.load_cert_chain(self._certificate, self._key, password="")
        return context


class Credential(NamedTuple):
    """The token sent with every request to an upstream, and the certificate of every connection."""

    token: BearerToken | None = None
    certificate: ClientCertificate | None = None


ANONYMOUS: Final = Credential()


def credential_of(
    settings: UpstreamSettings, upstream: Literal["inventory", "payment"]
) -> Credential:
    """Return our credential for an upstream. Raises SettingError for files that cannot be used."""
    field = f"{upstream}_token_file"
    path: str | None = getattr(settings, field)
    token = None if path is None else BearerToken(path, variable(UpstreamSettings, field))
    return Credential(token, _certificate(settings, f"{upstream}_"))


def credential_of_webhooks(settings: NotificationSettings) -> Credential:
    """Return our credential for the receiver. Raises SettingError for files that cannot be used."""
    return Credential(certificate=_certificate(settings, ""))


def _certificate(
    settings: UpstreamSettings | NotificationSettings, prefix: str
) -> ClientCertificate | None:
    field = f"{prefix}certificate_file"
    certificate, key = getattr(settings, field), getattr(settings, f"{prefix}key_file")
    if certificate is None:
        return None
    return ClientCertificate(certificate, key, variable(type(settings), field))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"the file cannot be read ({error.strerror})"
    return "the file holds no bearer token"


def _reason_of_pair(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "the files hold no certificate with its key, in PEM and without a passphrase"
    return f"a file of the pair cannot be read ({error.strerror})"
