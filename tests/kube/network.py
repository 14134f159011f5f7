"""The nodes' own network: a namespace of the kernel for each, and a switch that joins them to us.

There is no way out of it: what the pods ask the world for fails at once.
"""

import subprocess
from pathlib import Path
from typing import Final

import msgspec

NODES: Final = "10.211.0.0/24"
HOST: Final = "10.211.0.1"
PODS: Final = "10.245.0.0/16"
SERVICES: Final = "10.97.0.0/16"
_SWITCH: Final = "orders-switch"


class Place(msgspec.Struct, frozen=True):
    """A node's place: `name` is that of its network namespace, its cable and its control group."""

    name: str
    address: str
    pods: str

    def inside(self, *argv: str) -> list[str]:
        """Give the command that runs another inside."""
        return ["nsenter", f"--net={self.namespace}", "--", *argv]

    @property
    def namespace(self) -> Path:
        """The file of the network namespace."""
        return Path("/run/netns", self.name)


PLACES: Final = tuple(
    Place(f"orders-node{number}", f"10.211.0.1{number}", f"10.245.{number}.0/24")
    for number in (1, 2)
)


def lay() -> None:
    """Make it; this machine reaches pods and Services by their addresses."""
    _ip("link", "add", _SWITCH, "type", "bridge")
    _ip("address", "add", f"{HOST}/24", "dev", _SWITCH)
    _ip("link", "set", _SWITCH, "up")
    for place in PLACES:
        _connect(place)
        _ip("route", "add", place.pods, "via", place.address)
    _ip("route", "add", SERVICES, "via", PLACES[0].address)


def remove() -> None:
    """Take it away, with the routes, addresses and packet filters that it holds."""
    for link in (*(place.name for place in PLACES), _SWITCH):
        if Path("/sys/class/net", link).exists():
            _ip("link", "delete", link)
    for place in PLACES:
        if place.namespace.exists():
            _ip("netns", "delete", place.name)


def _connect(place: Place) -> None:
    _ip("netns", "add", place.name)
    _ip("link", "add", place.name, "type", "veth", "peer", "name", "eth0", "netns", place.name)
    _ip("link", "set", place.name, "master", _SWITCH, "up")
    others = [other for other in PLACES if other != place]
    for words in (
        ("link", "set", "lo", "up"),
        ("address", "add", f"{place.address}/24", "dev", "eth0"),
        ("link", "set", "eth0", "up"),
        ("route", "add", "unreachable", "default"),
        *(("route", "add", other.pods, "via", other.address) for other in others),
    ):
        _ip("-n", place.name, *words)
    for setting in ("net.ipv4.ip_forward=1", "net.ipv4.conf.all.route_localnet=1"):
        subprocess.run(place.inside("sysctl", "-qw", setting), check=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
