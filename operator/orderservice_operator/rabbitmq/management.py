"""Requests to RabbitMQ's management API for one virtual host.

Source: https://www.rabbitmq.com/docs/http-api-reference
"""

import asyncio
import re
import ssl
from collections.abc import Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from orderservice_operator.errors import Permanent, Transient, Unknown
from orderservice_topology import difference
from orderservice_topology.difference import Bound, Broker, Changes, Listed
from orderservice_topology.topology import Binding

T = TypeVar("T")
_TIMEOUT: Final = aiohttp.ClientTimeout(total=15, sock_connect=3)
# Statistics make a listing slow.
_TOTALS_ONLY: Final = {"disable_stats": "true", "enable_queue_totals": "true"}
_REASON_CHARACTERS: Final = 300
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_FOREIGN: Final = "the server at messaging.managementUrl is not RabbitMQ's management API"


class _Total(msgspec.Struct, frozen=True):
    """A queue in a listing; without numbers if its leader is down."""

    messages: int | None = None


class _Totals(msgspec.Struct, frozen=True):
    items: list[_Total]


class _Peek(msgspec.Struct, frozen=True):
    count: int
    ackmode: str
    encoding: str
    truncate: int  # bytes of a payload


class _Refusal(msgspec.Struct, frozen=True):
    error: str = ""
    reason: str = ""


class Address(msgspec.Struct, frozen=True):
    """Address and user for managing a virtual host."""

    url: str
    username: str
    password: str
    vhost: str

    def __repr__(self) -> str:
        return f"{self.url} {self.vhost}"


class Management:
    """One virtual host. Raises Transient if the broker does not answer, Permanent if it refuses.

    `authorities` verify its certificate; None: those of the machine. Also Permanent: an answer that
    is not RabbitMQ's, and an address that cannot be used.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        address: Address,
        authorities: ssl.SSLContext | None = None,
    ) -> None:
        self._session, self._address = session, address
        self._tls = authorities or True
        if ":" in address.username:
            raise Permanent("the user of the management API must not have a colon in its name")
        self._auth = {
            "Authorization": aiohttp.encode_basic_auth(address.username, address.password)
        }

    async def read(self) -> Broker:
        """Return the broker's listings of the virtual host."""
        policies, operator_policies, exchanges, queues, bindings = await asyncio.gather(
            self._list("policies"),
            self._list("operator-policies"),
            self._list("exchanges"),
            self._list("queues", _TOTALS_ONLY),
            self._list("bindings"),
        )
        try:
            return difference.broker(
                policies=policies,
                operator_policies=operator_policies,
                exchanges=exchanges,
                queues=queues,
                bindings=bindings,
            )
        except KeyError:
            raise Permanent(_FOREIGN) from None

    async def messages(self, queue: str) -> int:
        """Return how many messages a queue holds, including those being handled.

        The number is from the queue's last tick, five seconds ago at most. `/queues/{vhost}/{name}`
        is twice as late, and a passive declare over AMQP does not count unacknowledged messages.
        Raises Unknown if the broker does not know, which is not the same as 0.
        """
        filters = {"name": f"^{re.escape(queue)}$", "use_regex": "true", "page": "1"}
        answer = await self._call(
            "GET", f"queues/{self._vhost}", parameters=_TOTALS_ONLY | filters | {"page_size": "1"}
        )
        totals = _decoded(answer, _Totals).items
        if not totals or totals[0].messages is None:
            raise Unknown(f"queue {queue} {'is down' if totals else 'does not exist'}")
        return totals[0].messages

    async def holds_messages(self, queue: str) -> bool:
        """Return whether a queue has a message to deliver right now.

        Takes one and puts it back; the numbers of listings are up to 5 s old. A quorum queue cannot
        be deleted with `if-empty`.
        """
        question = _Peek(count=1, ackmode="ack_requeue_true", encoding="base64", truncate=1)
        answer = await self._call("POST", f"queues/{self._vhost}/{quoted(queue)}/get", question)
        return bool(_decoded(answer, list[Listed]))

    async def apply(self, changes: Changes) -> None:
        """Write changes: policies first, so that no queue is ever without its rules."""
        for policy in changes.policies:
            await self._put("policies", policy.name, policy)
        for exchange in changes.exchanges:
            await self._put("exchanges", exchange.name, exchange)
        for queue in changes.queues:
            await self._put("queues", queue.name, queue)
        for binding in changes.bindings:
            await self._call("POST", self._between(binding), binding)
        for stray in changes.strays:
            path = f"{self._between(stray)}/{quoted(stray.properties_key)}"
            await self._call("DELETE", path, absent_is_fine=True)

    async def get(self, path: str) -> dict[str, Any] | None:
        """Return an object of the whole broker, or None."""
        answer = await self._call("GET", path, absent_is_fine=True)
        return _decoded(answer, dict[str, Any]) if answer else None

    async def put(self, path: str, body: msgspec.Struct) -> None:
        """Create or replace an object of the whole broker."""
        await self._call("PUT", path, body)

    async def delete(self, kind: str, name: str) -> None:
        """Delete one object; it may be absent."""
        await self._call("DELETE", f"{kind}/{self._vhost}/{quoted(name)}", absent_is_fine=True)

    async def cluster(self) -> str | None:
        """Return the name of the broker's cluster, or None if it does not say."""
        answer = await self._call(
            "GET", "global-parameters/internal_cluster_id", absent_is_fine=True
        )
        identifier = _decoded(answer, dict[str, Any]).get("value") if answer else None
        return identifier if isinstance(identifier, str) else None

    def _between(self, binding: Binding | Bound) -> str:
        exchange_and_queue = f"e/{quoted(binding.source)}/q/{quoted(binding.destination)}"
        return f"bindings/{self._vhost}/{exchange_and_queue}"

    @property
    def _vhost(self) -> str:
        return quoted(self._address.vhost)

    async def _list(self, kind: str, parameters: Mapping[str, str] | None = None) -> list[Listed]:
        answer = await self._call("GET", f"{kind}/{self._vhost}", parameters=parameters)
        return _decoded(answer, list[Listed])

    async def _put(self, kind: str, name: str, body: msgspec.Struct) -> None:
        await self._call("PUT", f"{kind}/{self._vhost}/{quoted(name)}", body)

    async def _call(
        self,
        method: str,
        path: str,
        body: msgspec.Struct | None = None,
        *,
        parameters: Mapping[str, str] | None = None,
        absent_is_fine: bool = False,
    ) -> bytes:
        """Return the body of the answer; nothing for an absent object that may be absent."""
        url = f"{self._address.url.rstrip('/')}/api/{path}"
        try:
            async with self._session.request(
                method,
                # Virtual host `/` is %2F in the path, and must stay so.
                URL(url, encoded=True),
                params=parameters,
                data=None if body is None else msgspec.json.encode(body),
                headers={"Content-Type": "application/json", **self._auth},
                timeout=_TIMEOUT,
                ssl=self._tls,
                allow_redirects=False,
            ) as answer:
                content = await answer.read()
                if absent_is_fine and answer.status == 404:
                    return b""
                self._check(answer.status, f"{method} {path}", content)
                return content
        except aiohttp.ClientConnectorCertificateError as error:
            raise Permanent(
                "messaging.managementUrl: the certificate is not trusted "
                f"({error.certificate_error}); see caBundleSecretRef"
            ) from None
        except ValueError:  # for example a name that no resolver accepts
            raise Permanent("messaging.managementUrl: no request can be sent there") from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Transient(f"RabbitMQ's management API: {type(error).__name__}") from error

    def _check(self, status: int, call: str, content: bytes) -> None:
        if status in {401, 403}:
            raise Permanent(
                f"{call}: {status}: give the user the right password, the tag `policymaker` and "
                f"permissions on virtual host {self._address.vhost!r}"
            )
        if status == 429 or status >= 500:
            raise Transient(f"{call}: {status}")
        if status >= 300:
            raise Permanent(f"{call}: {status}{_reason(content)}")


def _reason(content: bytes) -> str:
    """Return RabbitMQ's own reason; text of any other server must not get into a status."""
    try:
        refusal = msgspec.json.decode(content, type=_Refusal)
    except _UNREADABLE:
        return ""
    text = refusal.reason or refusal.error
    return f": {text[:_REASON_CHARACTERS]}" if text else ""


def _decoded(answer: bytes, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(answer, type=type_)
    except _UNREADABLE:
        raise Permanent(_FOREIGN) from None


def quoted(name: str) -> str:
    """Return a name as a part of a path."""
    return quote(name, safe="")
