"""The node's own network: a namespace of the kernel, and a cable from this machine into it.

There is no way out of it: what its pods ask the world for fails at once.
"""

import subprocess
from pathlib import Path
from typing import Final

NAMESPACE: Final = "orders-node"
_CABLE: Final = "orders-node0"
HOST: Final = "10.211.0.1"
NODE: Final = "10.211.0.2"
PODS: Final = "10.245.0.0/24"
SERVICES: Final = "10.97.0.0/16"
_INSIDE: Final = ("nsenter", f"--net=/run/netns/{NAMESPACE}", "--")


def inside(*argv: str) -> list[str]:
    """Give the command that runs another inside."""
    return [*_INSIDE, *argv]


def lay() -> None:
    """Make it; this machine reaches pods and Services by their addresses."""
    _ip("netns", "add", NAMESPACE)
    _ip("link", "add", _CABLE, "type", "veth", "peer", "name", "eth0", "netns", NAMESPACE)
    _ip("address", "add", f"{HOST}/24", "dev", _CABLE)
    _ip("link", "set", _CABLE, "up")
    for words in (
        ("link", "set", "lo", "up"),
        ("address", "add", f"{NODE}/24", "dev", "eth0"),
        ("link", "set", "eth0", "up"),
        ("route", "add", "unreachable", "default"),
    ):
        _ip("-n", NAMESPACE, *words)
    for range_ in (PODS, SERVICES):
        _ip("route", "add", range_, "via", NODE, "dev", _CABLE)
    for setting in ("net.ipv4.ip_forward=1", "net.ipv4.conf.all.route_localnet=1"):
        subprocess.run(inside("sysctl", "-qw", setting), check=True)


def remove() -> None:
    """Take it away, with the routes, addresses and packet filters that it holds."""
    if _there(_CABLE):
        _ip("link", "delete", _CABLE)
    if Path("/run/netns", NAMESPACE).exists():
        _ip("netns", "delete", NAMESPACE)


def left() -> list[str]:
    """Name what is still there."""
    namespace = Path("/run/netns", NAMESPACE)
    return [_CABLE] * _there(_CABLE) + [str(namespace)] * namespace.exists()


def _there(link: str) -> bool:
    return Path("/sys/class/net", link).exists()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
