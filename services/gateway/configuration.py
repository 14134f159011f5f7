"""The template of the nginx configuration, and what is filled in."""

import resource
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from gateway.capacity import DEFAULT_MEMORY_MIB, capacity

FILES_WANTED = 32_768
KEPT = 64  # idle connections to the api that a process keeps
# In the folder of a Site: one line per answer, for metrics.py.
ANSWERS_LOG = "answers.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Say where the gateway listens, whom it asks, whom it believes and where it may write.

    `listen` are ports or address:port, `api` one or more address:port, `trusted_proxies` networks
    whose X-Forwarded-For is taken for the client's address, `drain_s` how long a request under way
    may take once nginx is told to end. `memory_mib` is what nginx and its parent may take,
    `api_in_flight` the requests that one api has at once before others are answered 503.
    """

    listen: Sequence[str]
    api: Sequence[str]
    folder: Path
    access_log: str
    trusted_proxies: Sequence[str] = ()
    drain_s: int = 2
    memory_mib: int = DEFAULT_MEMORY_MIB
    api_in_flight: int = 64


def render(site: Site) -> str:
    """Give the template with its @NAMES@ filled in."""
    limit = open_files()
    room = capacity(site.memory_mib)
    upstream = site.api_in_flight * len(site.api) + KEPT
    values = {
        "LISTEN": _lines(
            f"listen {address} default_server backlog=4096;" for address in site.listen
        ),
        "API": _lines(
            f"server {address} max_fails=0 max_conns={site.api_in_flight};" for address in site.api
        ),
        "REAL_IP": _lines(_real_ip(site.trusted_proxies)),
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


def open_files() -> int:
    """Give as many files as we want, or as the machine allows without root."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, FILES_WANTED)


def _real_ip(proxies: Sequence[str]) -> list[str]:
    if not proxies:
        return []
    trusted = [f"set_real_ip_from {network};" for network in proxies]
    return [*trusted, "real_ip_header X-Forwarded-For;", "real_ip_recursive on;"]


def _lines(lines: Iterable[str]) -> str:
    return "\n        ".join(lines)
