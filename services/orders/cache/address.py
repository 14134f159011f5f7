"""Finds Redis by the scheme of its URL: a server, a service behind Sentinels, or a cluster.

redis-py does the parts that are easy to get wrong: the URL, TLS, AUTH, SELECT and HELLO.
"""

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl, urlencode

from redis.connection import AbstractConnection, SSLConnection, parse_url
from redis.connection import Connection as TcpConnection
from redis.exceptions import RedisError

from orders.cache.connection import Connected, RedisConnection
from orders.cache.tls import KeptContext, TlsConnection
from orders.errors import SettingError
from orders.verified import url_parts

HANDSHAKE_S: Final = 3.0  # Guess: TLS and AUTH across zones, with room. No caller waits for it.
# Guess: longest wait for one Sentinel, or for one node's answer about the cluster. A frozen one
# delays each reconnection by this time.
_ASK_S: Final = 0.5
_IDENTIFY_S: Final = 1.0  # bounded, because a frozen server still accepts connections
_SCHEMES: Final = (
    "redis", "rediss", "unix",
    "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster",
)  # fmt: skip
_SENTINEL_PORT: Final = 26379
_PORT: Final = 6379


class _WrongUrl(ValueError):
    """Correct the URL. The text repeats no part of it: it may contain a password."""


class RedisTarget(Protocol):
    """The servers that a URL names."""

    def connect(self, timeout_s: float, *, protocol: int = 2) -> Connected:
        """Find the primaries and connect to all of them; `timeout_s` bounds each wait for a reply.

        Raises OSError, redis.RedisError and hiredis.HiredisError.
        """

    def primaries(self) -> frozenset[str]:
        """Return the known addresses of the primaries; may ask a Sentinel."""


def target_of(url: str) -> RedisTarget:
    """Read a URL. Raises SettingError when it cannot be used."""
    try:
        return _target(url)
    except _WrongUrl as error:
        raise SettingError(f"ORDERS_REDIS_URL is wrong: {error}") from None
    except (ValueError, TypeError, RedisError):
        # Without the text of the original error, which repeats the URL and its password.
        raise SettingError(
            "ORDERS_REDIS_URL is wrong: a host, a port or a parameter cannot be read "
            "(write an IPv6 address in [ ])"
        ) from None


def _target(url: str) -> RedisTarget:
    scheme = url.partition("://")[0]
    if scheme not in _SCHEMES:
        raise _WrongUrl(f"the scheme must be one of {', '.join(_SCHEMES)}")
    transport, _, kind = scheme.partition("+")
    if kind == "sentinel":
        return _sentinels(transport, url)
    return _cluster(transport, url) if kind else SingleServer(Login(url))


class Login:
    """How to connect and authenticate to a server, without its address."""

    def __init__(self, url: str) -> None:
        """Read a URL of one server; its address is the default."""
        self.arguments: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
        kind = self.arguments.pop("connection_class", TcpConnection)
        self._tls = kind is SSLConnection
        self.kind: Callable[..., AbstractConnection] = (
            functools.partial(TlsConnection, context_cache=KeptContext()) if self._tls else kind
        )
        self._link({}, protocol=2)  # raises for unknown parameters

    @property
    def address(self) -> str:
        """Return host and port of the server, for error messages."""
        return self.arguments.get("path") or f"{self.host}:{self.port}"

    @property
    def host(self) -> str:
        """Return the host in the URL."""
        return str(self.arguments.get("host", "localhost"))

    @property
    def port(self) -> int:
        """Return the port in the URL, or the default."""
        return int(self.arguments.get("port", _PORT))

    def others(self) -> dict[str, Any]:
        """Return the arguments for redis-py's clients that connect to other servers."""
        server_names = ("host", "port", "path", "db")
        arguments = {
            name: value for name, value in self.arguments.items() if name not in server_names
        }
        limits = {"socket_timeout": _ASK_S, "socket_connect_timeout": _ASK_S}
        return arguments | limits | {"ssl": self._tls}

    def connect(self, timeout_s: float, protocol: int, **address: Any) -> RedisConnection:
        """Connect to a primary."""
        link = self._link(address, protocol=protocol)
        link.connect()  # type: ignore[no-untyped-call]
        connection = RedisConnection(link, timeout_s)
        connection.identify(time.monotonic() + _IDENTIFY_S)
        return connection

    def _link(self, address: Mapping[str, Any], *, protocol: int) -> AbstractConnection:
        limits: dict[str, Any] = {
            "socket_timeout": HANDSHAKE_S,
            "protocol": protocol,
            "driver_info": None,  # saves two round trips of CLIENT SETINFO
        }
        return self.kind(**(self.arguments | limits | dict(address)))


class SingleServer:
    """One server, at the address in the URL."""

    def __init__(self, login: Login) -> None:
        self._login = login

    def primaries(self) -> frozenset[str]:
        """Return the address in the URL."""
        return frozenset({self._login.address})

    def connect(self, timeout_s: float, *, protocol: int = 2) -> Connected:
        """Connect to the server of the URL; it serves all slots."""
        return Connected({self._login.address: self._login.connect(timeout_s, protocol)}, None)


def _sentinels(transport: str, url: str) -> RedisTarget:
    # Imported only for this scheme: a single server does not need redis-py's clients.
    from orders.cache.discovery import Sentinels

    service, _, database = url_parts(url).path.strip("/").partition("/")
    if not service:
        raise _WrongUrl("the service's name is missing: redis+sentinel://host:port/service/db")
    if database and not database.isdigit():
        raise _WrongUrl("the database after the service's name must be a number")
    query = dict(parse_qsl(url_parts(url).query))
    credentials = {name: query.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    logins = list(_logins(transport, url, f"/{database or 0}", urlencode(query)))
    sentinels = [(login.host, login.arguments.get("port", _SENTINEL_PORT)) for login in logins]
    return Sentinels(logins[0], sentinels, credentials, service)


def _cluster(transport: str, url: str) -> RedisTarget:
    # Imported only for this scheme, like Sentinels.
    from orders.cache.discovery import Cluster

    if url_parts(url).path.strip("/") not in {"", "0"}:
        raise _WrongUrl("a cluster has one database, 0: leave the path out")
    logins = list(_logins(transport, url, "", url_parts(url).query))
    return Cluster(logins[0], [(login.host, login.port) for login in logins])


def _logins(transport: str, url: str, path: str, query: str) -> Iterator[Login]:
    user, at_sign, hosts = url_parts(url).netloc.rpartition("@")
    for host in hosts.split(","):
        if not host.strip() or host.startswith(":"):
            raise _WrongUrl("a host is missing")
        yield Login(f"{transport}://{user}{at_sign}{host}{path}?{query}")
