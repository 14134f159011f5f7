"""Requests to the API server: list, watch, server-side apply, delete.

kopf's own client is not for users, and the official one takes more memory than all the rest here.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp
import msgspec

from orderservice_operator.children.manifest import Manifest
from orderservice_operator.cluster.credentials import Credentials
from orderservice_operator.errors import (
    Busy,
    Conflict,
    Forbidden,
    Gone,
    NotFound,
    OperatorError,
    Permanent,
    Transient,
)

# A guess: longer than a busy API server takes.
_REQUEST: Final = aiohttp.ClientTimeout(total=30, sock_connect=10)
# A watch that is silent for longer is dead: the API server sends a bookmark each minute.
SILENCE_S: Final = 75.0
_WATCH_S: Final = 290
_PAGE: Final = 200
_FORBIDDEN_WAIT_S: Final = 15.0  # a person must correct a role; a namespace ends within seconds
_ERRORS: Final[dict[int, type[OperatorError]]] = {404: NotFound, 409: Conflict, 410: Gone}

_METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

Parameters = Mapping[str, str]


class Page(msgspec.Struct, frozen=True):
    """Some objects of a kind; all pages of a listing have the same version."""

    version: str
    items: list[Manifest]


class Client:
    """A session with the API server; `count` is called with the method of every request.

    Every error is one of `errors`. A watch that is silent for `silence_s` counts as dead. If the
    server asks for a retry later, a call retries within `patience_s`, because a person has no
    queue.
    """

    def __init__(
        self,
        credentials: Credentials,
        count: Callable[[str], None],
        silence_s: float = SILENCE_S,
        patience_s: float = 0,
    ) -> None:
        self._credentials, self._count, self._patience_s = credentials, count, patience_s
        self._watch = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=silence_s)
        connector = aiohttp.TCPConnector(ssl=credentials.ssl_context(), limit=32)
        self._session = aiohttp.ClientSession(connector=connector)
        self._server_time: tuple[datetime, float] | None = None  # and when it arrived

    def now(self) -> datetime:
        """Return the API server's time from its last answer: our own clock may differ."""
        if self._server_time is None:
            return datetime.now(UTC)
        server_time, heard_at = self._server_time
        return server_time + timedelta(seconds=time.monotonic() - heard_at)

    async def close(self) -> None:
        """Close all connections to the API server."""
        await self._session.close()

    async def get(self, path: str, parameters: Parameters | None = None) -> Manifest:
        """Read one object, or a list."""
        return await self._call("GET", path, parameters)

    async def apply(
        self,
        path: str,
        manifest: Manifest,
        manager: str,
        *,
        force: bool = True,
        dry_run: bool = False,
    ) -> Manifest:
        """Apply as `manager`; without `force`, another manager's field raises Conflict."""
        parameters = {"fieldManager": manager, "force": "true" if force else "false"}
        return await self._call(
            "PATCH", path, parameters | _dry(dry_run), manifest, "application/apply-patch+yaml"
        )

    async def merge(
        self, path: str, change: Manifest, manager: str, *, dry_run: bool = False
    ) -> Manifest:
        """Change members of an object, as `kubectl edit` does; None removes one."""
        parameters = {"fieldManager": manager} | _dry(dry_run)
        return await self._call("PATCH", path, parameters, change, "application/merge-patch+json")

    async def create(self, path: str, manifest: Manifest) -> Manifest:
        """Create an object in a collection."""
        return await self._call("POST", path, {}, manifest, "application/json")

    async def replace(self, path: str, manifest: Manifest) -> Manifest:
        """Replace an object. Raises Conflict if it no longer has the given version."""
        return await self._call("PUT", path, {}, manifest, "application/json")

    async def delete(self, path: str, uid: str | None = None) -> None:
        """Delete an object (only that one, if `uid` is given); it may be absent."""
        body: Manifest = {"propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            await self._call("DELETE", path, {}, body, "application/json")
        except NotFound:
            return

    async def pages(self, path: str, selector: str = "") -> AsyncIterator[Page]:
        """Yield all objects, page by page: never more than one is in memory."""
        parameters = {"labelSelector": selector, "limit": str(_PAGE)}
        while True:
            page = await self.get(path, parameters)
            yield Page(page["metadata"]["resourceVersion"], page["items"])
            token = page["metadata"].get("continue")
            if not token:
                return
            parameters |= {"continue": token}

    async def watch(
        self, path: str, version: str, selector: str = "", *, metadata_only: bool = False
    ) -> AsyncIterator[Manifest]:
        """Yield events after `version` until the server ends the watch. Raises Gone.

        Without a version the events start with one for each existing object.
        """
        parameters = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "labelSelector": selector,
            "timeoutSeconds": str(_WATCH_S),
        }
        headers = {"Accept": _METADATA} if metadata_only else {}
        sending = self._send("GET", path, parameters, timeout=self._watch, headers=headers)
        async with sending as answer:
            async for line in _lines(answer.content):
                event: Manifest = msgspec.json.decode(line)
                if event["type"] == "ERROR":
                    raise _error(event["object"].get("code", 500), event["object"], answer.headers)
                yield event

    async def _call(
        self,
        method: str,
        path: str,
        parameters: Parameters | None = None,
        body: Manifest | None = None,
        content: str = "application/json",
    ) -> Manifest:
        data = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": content}
        give_up_at = time.monotonic() + self._patience_s
        while True:
            sending = self._send(
                method, path, parameters, data=data, timeout=_REQUEST, headers=headers
            )
            try:
                async with sending as answer:
                    reply: Manifest = msgspec.json.decode(await answer.read())
                    return reply
            except Busy as error:
                wait_s = max(error.after_s, 1)
                if time.monotonic() + wait_s > give_up_at:
                    raise
                await asyncio.sleep(wait_s)

    @asynccontextmanager
    async def _send(
        self,
        method: str,
        path: str,
        parameters: Parameters | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        self._count(method)
        identity = self._credentials.headers()
        try:
            async with self._session.request(
                method,
                self._credentials.server + path,
                params=parameters or {},
                headers={**(headers or {}), **identity},
                **options,
            ) as answer:
                self._note_time(answer.headers.get("Date", ""))
                if answer.status == 401 and self._credentials.renewed(identity):
                    raise Transient("the token has expired; there is a new one")
                if answer.status >= 400:
                    raise _error(answer.status, await _status(answer), answer.headers)
                yield answer
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError) as error:
            raise Transient(f"{method} {path}: {type(error).__name__}: {error}") from error

    def _note_time(self, date: str) -> None:
        try:
            server_time = parsedate_to_datetime(date)
        except ValueError:
            return
        self._server_time = (server_time, time.monotonic())


def _dry(dry_run: bool) -> dict[str, str]:  # noqa: FBT001 one word, one meaning
    """Request a dry run, with errors for unknown members."""
    return {"dryRun": "All", "fieldValidation": "Strict"} if dry_run else {}


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield whole lines; an object may be longer than the reader's own limit."""
    remainder = b""
    async for chunk in content.iter_any():
        *complete, remainder = (remainder + chunk).split(b"\n")
        for line in complete:
            if line:
                yield line


async def _status(answer: aiohttp.ClientResponse) -> Manifest:
    try:
        body = msgspec.json.decode(await answer.read())
    except msgspec.DecodeError:
        return {}
    return body if isinstance(body, dict) else {}


def _error(status: int, body: Manifest, headers: Mapping[str, str]) -> OperatorError:
    """Translate an answer into an exception whose class tells the caller what to do."""
    message = f"{status}: {body.get('message', 'no explanation')}"
    if status in _ERRORS:
        return _ERRORS[status](message)
    if status == 403:
        return Forbidden(message, _FORBIDDEN_WAIT_S)
    if status == 401:
        return Transient(message, _FORBIDDEN_WAIT_S)
    if status == 429:
        return Busy(message, _wait_s(headers))
    if status >= 500:
        return Transient(message, _wait_s(headers))
    return Permanent(message)


def _wait_s(headers: Mapping[str, str]) -> float:
    text = headers.get("Retry-After", "")
    return float(text) if text.isdigit() else 0
