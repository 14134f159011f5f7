"""Addresses of the hosts in a URL of PostgreSQL, looked up within a time.

The C library's look-up has no deadline: a name server that does not answer holds a thread for up
to 20 s. So each look-up has a separate thread, and the caller waits for a limited time.
"""

import ipaddress
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo

PORT: Final = "5432"  # libpq's default

HostPort = tuple[str, str]  # host and port, as the URL has them
Addresses = Sequence[str]


def hosts_and_ports(parameters: Mapping[str, Any]) -> list[HostPort]:
    """Return the hosts of a URL, each with its port; one port alone is that of all hosts."""
    hosts = str(parameters.get("host") or "").split(",")
    ports = [port or PORT for port in str(parameters.get("port") or "").split(",")]
    if len(ports) < len(hosts):
        ports = ports[:1] * len(hosts)
    return list(zip(hosts, ports, strict=False))


class Names:
    """Look names up, each by at most one thread at a time. Make it after fork; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[HostPort, Future[Addresses]] = {}

    def resolved(self, conninfo: str, timeout_s: float) -> str:
        """Return a conninfo that has addresses for all names; a name without any is left out.

        The time is for all names together. Raises psycopg.OperationalError when no host is left:
        ConnectionTimeout if the name server did not answer in time.
        """
        parameters = conninfo_to_dict(conninfo)
        hosts = hosts_and_ports(parameters)
        if parameters.get("hostaddr") or not any(_is_name(host) for host, _ in hosts):
            return conninfo
        addresses = self._addresses(hosts, timeout_s)
        return make_conninfo(
            "",
            **parameters
            | {
                "host": ",".join(host for host, _, _ in addresses),
                "port": ",".join(port for _, port, _ in addresses),
                "hostaddr": ",".join(address for _, _, address in addresses),
            },
        )

    def _addresses(self, hosts: Sequence[HostPort], timeout_s: float) -> list[tuple[str, str, str]]:
        deadline_s = time.monotonic() + timeout_s
        lookups = [self._lookup(host, port) if _is_name(host) else None for host, port in hosts]
        resolved: list[tuple[str, str, str]] = []
        failure: Exception | None = None
        for (host, port), lookup in zip(hosts, lookups, strict=True):
            if lookup is None:  # a path or an address; libpq takes an empty hostaddr for none
                resolved.append((host, port, ""))
                continue
            try:
                addresses = lookup.result(max(0.0, deadline_s - time.monotonic()))
            except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
                failure = error
                continue
            resolved.extend((host, port, address) for address in addresses)
        if not resolved:
            if isinstance(failure, TimeoutError) and not isinstance(failure, socket.gaierror):
                raise errors.ConnectionTimeout(
                    "the name server did not answer in time"
                ) from failure
            raise psycopg.OperationalError("no host has an address") from failure
        return resolved

    def _lookup(self, host: str, port: str) -> "Future[Addresses]":
        """Return the look-up of a name that is under way, or begin one."""
        with self._lock:
            lookup = self._under_way.get((host, port))
            if lookup is None:
                lookup = self._under_way[host, port] = Future()
                threading.Thread(
                    target=self._look_up,
                    args=(host, port, lookup),
                    name="database-name",
                    daemon=True,
                ).start()
            return lookup

    def _look_up(self, host: str, port: str, lookup: "Future[Addresses]") -> None:
        try:
            records = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
            )
        except Exception as error:  # noqa: BLE001 raised again where the addresses are awaited
            self._end(host, port)
            lookup.set_exception(error)
        else:
            self._end(host, port)
            lookup.set_result([str(record[4][0]) for record in records])

    def _end(self, host: str, port: str) -> None:
        with self._lock:
            del self._under_way[host, port]


def _is_name(host: str) -> bool:
    """Return whether a host has to be looked up: it is neither an address nor a socket's path."""
    if not host or host.startswith(("/", "@")):
        return False
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return True
    return False
