"""The bearer token that Inventory and Payment know us by: in a file that may be replaced."""

import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import structlog

from orders.errors import SettingError
from orders.settings import UpstreamSettings, variable

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1

_Version = tuple[int, int, int]

_log = structlog.get_logger()


class BearerToken:
    """The token in a file, read again by the first request after the file changed. Thread-safe.

    What cannot be read or is no token, perhaps half written, is not taken over: the token of before
    goes on.
    """

    def __init__(self, path: str, name: str) -> None:
        """Read the file. Raises SettingError, which names the setting and not the contents."""
        self._path, self._name = Path(path), name
        self._lock = threading.Lock()
        try:
            self._version = self._look()
            self._fields = self._read()
        except (OSError, ValueError) as error:
            raise SettingError(f"{name} is wrong: {_reason(error)}") from error

    @property
    def fields(self) -> Mapping[str, str]:
        """The header fields that carry the token of this moment."""
        try:
            version = self._look()
        except OSError as error:
            self._keep((0, 0, 0), error)
            return self._fields
        if version != self._version:
            self._renew(version)
        return self._fields

    def _look(self) -> _Version:
        """Return what changes with the file; Kubernetes replaces a link to its folder."""
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
        """Go on with the token of before, and say so once for each version of the file."""
        with self._lock:
            unchanged, self._version = self._version == version, version
        if not unchanged:
            _log.warning("upstream.token_not_renewed", setting=self._name, reason=_reason(error))


def bearer(
    settings: UpstreamSettings, upstream: Literal["inventory", "payment"]
) -> BearerToken | None:
    """Return the token for an upstream; None where no file is set. Raises SettingError."""
    field = f"{upstream}_token_file"
    path: str | None = getattr(settings, field)
    return None if path is None else BearerToken(path, variable(UpstreamSettings, field))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"the file cannot be read ({error.strerror})"
    return "the file holds no bearer token"
