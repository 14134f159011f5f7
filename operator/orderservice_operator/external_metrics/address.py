"""The address at which the API server finds this operator."""

from typing import Final

import msgspec

_HTTPS: Final = 443


class ServiceAddress(msgspec.Struct, frozen=True):
    """A port of the Service in front of the operator's replicas."""

    namespace: str
    name: str
    port: int = _HTTPS

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}:{self.port}"

    @property
    def server_names(self) -> tuple[str, ...]:
        """Return the names under which the API server may connect."""
        return (f"{self.name}.{self.namespace}.svc", f"{self.name}.{self.namespace}")

    @property
    def secret(self) -> str:
        """Return the path of the Secret with the certificate."""
        return f"/api/v1/namespaces/{self.namespace}/secrets/{self.name}-tls"


def read(text: str) -> ServiceAddress | None:
    """Read `namespace/name` or `namespace/name:port`; return None for an empty text."""
    namespace, _, server = text.partition("/")
    name, _, port = server.partition(":")
    return ServiceAddress(namespace, name, int(port or _HTTPS)) if name else None
