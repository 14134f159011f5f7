"""Where the API server finds this operator."""

import re
from typing import Final

import msgspec

_HTTPS: Final = 443
PATTERN: Final = r"^([a-z0-9-]+)/([a-z0-9-]+)(?::([0-9]{1,5}))?$"


class Place(msgspec.Struct, frozen=True):
    """A port of the Service in front of the operator's replicas."""

    namespace: str
    name: str
    port: int = _HTTPS

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}:{self.port}"

    @property
    def server_names(self) -> tuple[str, ...]:
        """The names that the API server may call it by."""
        return (f"{self.name}.{self.namespace}.svc", f"{self.name}.{self.namespace}")

    @property
    def secret(self) -> str:
        """The path of the Secret with its certificate."""
        return f"/api/v1/namespaces/{self.namespace}/secrets/{self.name}-tls"


def read(text: str) -> Place | None:
    """Read `namespace/name` or `namespace/name:port`; anything else is none."""
    found = re.match(PATTERN, text)
    return Place(found[1], found[2], int(found[3] or _HTTPS)) if found else None
