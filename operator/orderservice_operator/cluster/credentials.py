"""The operator's credentials for the API server, found by kopf's own log-ins."""

import ssl
import time
from collections.abc import Sequence
from typing import Final, Protocol

import kopf

from orderservice_operator.errors import OperatorError

# A pod's token is renewed on disk long before it ends.
_REREAD_S: Final = 60.0


class Login(Protocol):
    """One of kopf's log-ins; None if it does not apply."""

    def __call__(self, *, settings: kopf.OperatorSettings) -> kopf.ConnectionInfo | None:
        """Return the address and the credentials of the API server."""


_WAYS: Final[tuple[Login, ...]] = (kopf.login_with_service_account, kopf.login_with_kubeconfig)


class Credentials:
    """The API server's address and our credentials; read again once a minute."""

    def __init__(self, settings: kopf.OperatorSettings, ways: Sequence[Login] = _WAYS) -> None:
        self._settings, self._ways = settings, ways
        self._info = self._read()
        self._read_at = time.monotonic()

    @property
    def server(self) -> str:
        """The URL of the API server."""
        return self._info.server.rstrip("/")

    @property
    def namespace(self) -> str:
        """The namespace of the kubeconfig or of the pod, else `default`."""
        return self._info.default_namespace or "default"

    def headers(self) -> dict[str, str]:
        """Return the headers that authenticate a request."""
        if time.monotonic() - self._read_at > _REREAD_S:
            self._info, self._read_at = self._read(), time.monotonic()
        return self._info.as_http_headers()

    def renewed(self, headers: dict[str, str]) -> bool:
        """Read the credentials again; return whether they differ from the refused ones."""
        self._info, self._read_at = self._read(), time.monotonic()
        return self._info.as_http_headers() != headers

    def ssl_context(self) -> ssl.SSLContext | bool:
        """Return how to verify the server, with the client's certificate if it has one."""
        return self._info.as_ssl_context() if self.server.startswith("https") else False

    def _read(self) -> kopf.ConnectionInfo:
        for way in self._ways:
            if (connection := way(settings=self._settings)) is not None:
                return connection
        raise OperatorError("no API server: run in a pod, or set KUBECONFIG")
