"""Digests of what pods read from Secrets: their pods are replaced when one changes.

Secrets may be read by name only, so they are read again periodically, and at once if a watch of
their metadata reports another version.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Final

import msgspec
import structlog

from orderservice_operator.children import environment, processes
from orderservice_operator.children.manifest import digest
from orderservice_operator.children.migration_job import COMPONENT as MIGRATE
from orderservice_operator.cluster.client import Client
from orderservice_operator.errors import NotFound, OperatorError
from orderservice_operator.resource.key import Key
from orderservice_operator.resource.spec import OrderService

Entries = Mapping[str, str]
# By default one in 1.5 s: the API server gets less than one request a second, for any number of
# resources.
_IN_A_PERIOD: Final = 20
_NONE: Final[Entries] = {}
# The period in which a Secret that pods wait for is read again.
_LACKING_S: Final = 5.0
_log = structlog.get_logger(__name__)


class SecretDigests(msgspec.Struct, frozen=True):
    """Digests of the entries of one version of a Secret."""

    at: float
    entries: Entries
    version: str


class Fingerprints:
    """Reads each Secret when it is first needed, then all of them in turn.

    Each is read every `period_s`; with more than 20 it takes proportionally longer. Only digests
    are kept.
    """

    def __init__(self, client: Client, period_s: float) -> None:
        self._client, self._period_s = client, period_s
        self._read: dict[Key, SecretDigests] = {}  # in the order of reading
        self._uses: dict[Key, frozenset[Key]] = {}
        self._changed: set[Key] = set()  # since they were read
        self._meanwhile: dict[Key, str] = {}  # versions seen during the first read of a Secret
        self._news = asyncio.Event()

    async def of(self, service: OrderService) -> dict[str, str]:
        """Return a digest for each process that lacks no entry. Raises Transient.

        It is salted with the resource, so that the same password elsewhere looks different. It
        includes an optional entry while that exists.
        """
        needs, optional = _used(service), _optional(service)
        all_entries = [*needs.values(), *optional.values()]
        names = sorted({name for entries in all_entries for name, _ in entries})
        namespace = service.metadata.namespace
        secrets = [Key(namespace, name) for name in names]
        self._uses[Key(namespace, service.metadata.name)] = frozenset(secrets)
        keys_of = {
            name: {key for entries in needs.values() for n, key in entries if n == name}
            for name in names
        }
        contents = await asyncio.gather(
            *(self._known(secret, keys_of[secret.name]) for secret in secrets)
        )
        entries_of = dict(zip(names, contents, strict=True))
        return {
            process: digest(
                [
                    service.metadata.uid,
                    [
                        [name, key, entries_of[name][key]]
                        for name, key in [*entries, *optional[process]]
                        if key in entries_of[name]
                    ],
                ]
            )
            for process, entries in needs.items()
            if all(key in entries_of[name] for name, key in entries)
        }

    def missing(self, service: OrderService) -> tuple[str, ...]:
        """Return texts about the entries that pods need and that the last read did not find."""
        namespace = service.metadata.namespace
        needs = {entry for entries in _used(service).values() for entry in entries}
        return tuple(
            f"Secret {name} does not exist" if not digests.entries else f"Secret {name} lacks {key}"
            for name, key in sorted(needs)
            if (digests := self._read.get(Key(namespace, name))) is not None
            and key not in digests.entries
        )

    def forget(self, resource: Key) -> None:
        """Stop reading for a resource that is gone."""
        self._uses.pop(resource, None)

    def note_version(self, secret: Key, version: str) -> None:
        """Read a Secret at once if its version is not the one that was read."""
        if secret in self._meanwhile:
            self._meanwhile[secret] = version
        elif (digests := self._read.get(secret)) is not None and digests.version != version:
            self._changed.add(secret)
            self._news.set()

    async def run(self, on_change: Callable[[Key], None]) -> None:
        """Read for ever; `on_change` is called for resources that use a changed Secret."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._period_s / _IN_A_PERIOD):
                    await self._news.wait()
            self._news.clear()
            for secret in [*self._changed] or self._due():
                for resource in await self._renew(secret):
                    on_change(resource)

    def _due(self) -> Collection[Key]:
        """Return the Secret that was read longest ago, if it is due."""
        secret = next(iter(self._read), None)
        waits = secret is None or time.monotonic() - self._read[secret].at < self._period_s
        return () if secret is None or waits else (secret,)

    async def _renew(self, secret: Key) -> Collection[Key]:
        """Read a Secret again; return the resources that it changed for."""
        self._changed.discard(secret)
        users = [resource for resource, secrets in self._uses.items() if secret in secrets]
        if not users:
            self._read.pop(secret, None)
            return ()
        old_digests = self._read[secret]  # stays meanwhile, so that nothing else reads it
        new_digests = old_digests
        try:
            new_digests = await self._fetch(secret)
        except OperatorError as error:  # it gets another turn, after the others
            new_digests = SecretDigests(time.monotonic(), old_digests.entries, old_digests.version)
            _log.warning("secret.unread", secret=str(secret), error=str(error))
        del self._read[secret]  # to the end of the line
        self._read[secret] = new_digests
        return users if new_digests.entries != old_digests.entries else ()

    async def _known(self, secret: Key, keys: Collection[str]) -> Entries:
        """Return the entries; a Secret that lacks a key is read again soon."""
        if (digests := self._read.get(secret)) is not None:
            lacking = any(key not in digests.entries for key in keys)
            if not lacking or time.monotonic() - digests.at < _LACKING_S:
                return digests.entries
        self._meanwhile.setdefault(secret, "")
        try:
            digests = self._read[secret] = await self._fetch(secret)
        finally:
            version = self._meanwhile.pop(secret, "")
        if version:
            self.note_version(secret, version)
        return digests.entries

    async def _fetch(self, secret: Key) -> SecretDigests:
        path = f"/api/v1/namespaces/{secret.namespace}/secrets/{secret.name}"
        try:
            body = await self._client.get(path)
        except NotFound:
            return SecretDigests(time.monotonic(), _NONE, "")
        entries = {key: digest(value) for key, value in (body.get("data") or {}).items()}
        version = body.get("metadata", {}).get("resourceVersion", "")
        return SecretDigests(time.monotonic(), entries, version)


def _used(service: OrderService) -> dict[str, list[tuple[str, str]]]:
    """Return the Secrets and entries that each process and the migration need."""
    entries = {
        process.name: sorted(environment.secret_entries(service, process))
        for process in processes.ALL
    }
    return entries | {MIGRATE: sorted(environment.migration_entries(service))}


def _optional(service: OrderService) -> dict[str, list[tuple[str, str]]]:
    """Return the optional entries that each process and the migration read."""
    return {
        component: sorted(environment.optional_entries(service, component))
        for component in (*(process.name for process in processes.ALL), MIGRATE)
    }
