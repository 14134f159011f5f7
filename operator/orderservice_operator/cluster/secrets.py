"""Entries of Secrets, remembered for a while so that a steady state asks for nothing."""

import base64
import time
from typing import Final

from orderservice_operator.cluster.client import Client
from orderservice_operator.errors import NotFound, Permanent

_KEPT_S: Final = 300.0  # a guess: a new password is used at the latest then


class Secrets:
    """Reads Secrets one by one, by name: the operator may not list them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._read: dict[tuple[str, str], tuple[float, dict[str, str]]] = {}

    async def entry(self, namespace: str, name: str, key: str) -> str:
        """Return one entry. Raises Permanent when there is none, or no text in it."""
        entries = await self._entries(namespace, name)
        if key not in entries:
            raise Permanent(f"Secret {name} has no entry {key}")
        try:
            return base64.b64decode(entries[key]).decode()
        except UnicodeDecodeError:
            raise Permanent(f"Secret {name}: entry {key} is not text in UTF-8") from None

    async def _entries(self, namespace: str, name: str) -> dict[str, str]:
        read_at, entries = self._read.get((namespace, name), (0.0, {}))
        if entries and time.monotonic() - read_at < _KEPT_S:
            return entries
        try:
            secret = await self._client.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")
        except NotFound as error:
            raise Permanent(f"Secret {name} does not exist") from error
        entries = secret.get("data") or {}  # others than those asked for may be anything
        self._read[namespace, name] = (time.monotonic(), entries)
        return entries
