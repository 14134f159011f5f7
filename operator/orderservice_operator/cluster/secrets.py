"""Entries of Secrets, cached for a while so that a steady state makes no requests."""

import base64
import time
from collections.abc import Mapping
from typing import Final

import msgspec

from orderservice_operator.cluster.client import Client
from orderservice_operator.errors import NotFound, Permanent

_KEPT_S: Final = (
    300.0  # a guess: the longest time until a new password is used if the old one still works
)


class Secret(msgspec.Struct, frozen=True):
    """A Secret as it was read; `data` is in base64."""

    name: str
    type: str
    labels: Mapping[str, str]
    data: Mapping[str, str]

    def entry(self, key: str) -> str:
        """Return one entry. Raises Permanent if it is missing or is not text."""
        if key not in self.data:
            raise Permanent(f"Secret {self.name} has no entry {key}")
        try:
            return base64.b64decode(self.data[key]).decode()
        except UnicodeDecodeError:
            raise Permanent(f"Secret {self.name}: entry {key} is not text in UTF-8") from None


class Secrets:
    """Reads Secrets one by one, by name: the operator may not list them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._read: dict[tuple[str, str], tuple[float, Secret]] = {}

    async def read(self, namespace: str, name: str) -> Secret:
        """Return a Secret. Raises Permanent if it does not exist."""
        if (cached := self._read.get((namespace, name))) is not None:
            read_at, secret = cached
            if secret.data and time.monotonic() - read_at < _KEPT_S:
                return secret
        try:
            body = await self._client.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")
        except NotFound as error:
            raise Permanent(f"Secret {name} does not exist") from error
        secret = Secret(
            name,
            body.get("type", ""),
            body.get("metadata", {}).get("labels") or {},
            body.get("data") or {},
        )
        self._read[namespace, name] = (time.monotonic(), secret)
        return secret

    def forget(self, namespace: str, name: str) -> None:
        """Read a Secret again the next time, because its content was refused."""
        self._read.pop((namespace, name), None)
