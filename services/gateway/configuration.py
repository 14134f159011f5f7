"""The template of the nginx configuration, and its values."""

import resource
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from gateway.capacity import DEFAULT_MEMORY_MIB, capacity
from gateway.certificate import Pair

FILES_WANTED = 32_768
KEPT = 64  # idle connections to the api that a process keeps
# In the folder of a Site: one line per answer, for metrics.py.
ANSWERS_LOG = "answers.log"
# For TLS 1.2: forward secrecy and authenticated encryption only. TLS 1.3 has no others.
_CIPHERS: Final = ":".join(
    f"ECDHE-{key}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for key in ("ECDSA", "RSA")
)
# A client that sent a request so long ago is not idle.
_BUSY_S: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The gateway's ports, the api's addresses, trusted proxies and writable folder.

    `listen` are ports or address:port, `api` one or more address:port. `trusted_proxies` are the
    networks whose X-Forwarded-For names the client. `drain_s` is how long a request may take after
    nginx is told to end. nginx and its parent may use `memory_mib` of memory. If an api has
    `api_in_flight` requests, further ones are answered 503. With `tls`, plain HTTP is refused.
    """

    listen: Sequence[str]
    api: Sequence[str]
    folder: Path
    access_log: str
    trusted_proxies: Sequence[str] = ()
    drain_s: int = 2
    memory_mib: int = DEFAULT_MEMORY_MIB
    api_in_flight: int = 64
    tls: Pair | None = None


def render(site: Site) -> str:
    """Give the template with its @NAMES@ filled in."""
    # As many files as we want, or as the machine allows without root.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, FILES_WANTED)
    room = capacity(site.memory_mib, tls=site.tls is not None)
    ssl = " ssl" if site.tls else ""
    upstream = site.api_in_flight * len(site.api) + KEPT
    values = {
        "LISTEN": _lines(
            f"listen {address}{ssl} default_server backlog=4096;" for address in site.listen
        ),
        "API": _lines(
            f"server {address} max_fails=0 max_conns={site.api_in_flight};" for address in site.api
        ),
        "REAL_IP": _lines(_real_ip(site.trusted_proxies)),
        "TLS": _lines(_tls(site.tls)),
        "PLAIN": ":plain" if site.tls else "",
        "FOLDER": str(site.folder),
        "ACCESS_LOG": site.access_log,
        "ANSWERS_LOG": str(site.folder / ANSWERS_LOG),
        "DRAIN_S": str(site.drain_s),
        "FILES": str(limit),
        "CONNECTIONS": str(min(limit // 2, room.connections // 2 + upstream)),
        "REQUESTS": str(room.requests),
        "REQUESTS_PER_ADDRESS": str(room.requests_per_address),
        "KEPT": str(KEPT),
    }
    text = files("gateway").joinpath("nginx.conf").read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def _real_ip(proxies: Sequence[str]) -> list[str]:
    if not proxies:
        return []
    directives = [f"set_real_ip_from {network};" for network in proxies]
    return [*directives, "real_ip_header X-Forwarded-For;", "real_ip_recursive on;"]


def _tls(pair: Pair | None) -> list[str]:
    """Return what is said of TLS; the file has the reasons that hold for every certificate."""
    if pair is None:
        return []
    return [
        f"ssl_certificate {pair.certificate};",
        f"ssl_certificate_key {pair.key};",
        "ssl_protocols TLSv1.2 TLSv1.3;",
        f"ssl_ciphers {_CIPHERS};",
        "ssl_session_cache shared:tls:2m;",
        # As much memory as a connection of ours needs anyway.
        "ssl_buffer_size 4k;",
        # A renewal starts new processes. The former ones close idle connections at once, and would
        # meet the next request of a client that is not idle at all.
        f"keepalive_min_timeout {_BUSY_S}s;",
    ]


def _lines(lines: Iterable[str]) -> str:
    return "\n        ".join(lines)
