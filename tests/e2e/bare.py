"""Nodes of our own, and images built without a registry: for a machine without Docker."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from control_plane.plane import ControlPlane
from e2e import images
from e2e.terminal import say
from images import workshop
from kube import network, node, required

# The servers that stand in for those of a registry.
VALUES: Final = Path(__file__).parent / "servers" / "values.yaml"


@contextmanager
def running() -> Iterator[ControlPlane]:
    """Build what is missing, start everything, and remove it, also after a failure."""
    node.check_tools()
    names = list(_images())
    node.clear()
    node.STATE.mkdir(mode=0o700)
    plane = ControlPlane(
        required.control_plane(), node.STATE / "plane", network.HOST, network.SERVICES
    )
    programs = node.Programs(required.tool("kubelet"), required.tool("kube-proxy"), images.PAUSE)
    nodes = [node.Node(plane, place, programs) for place in network.PLACES]
    try:
        network.lay()
        say("starting the control plane")
        plane.start()
        plane.start_scheduler()
        _start(nodes, names)
        yield plane
    finally:
        say("removing the nodes")
        node.stop(nodes)
        plane.stop()
        node.clear()


def outside() -> str:
    """Return the range that this machine's requests come from, and the nodes' own."""
    return network.NODES


def _images() -> Iterator[str]:
    for name in images.every():
        say(f"image {name}")
        yield name


def _start(nodes: list[node.Node], names: list[str]) -> None:
    archive = node.STATE / "images.tar"
    say("packing the images")
    workshop.save(names, archive)
    for member in nodes:
        say(f"starting {member.name} and importing them")
        member.start(archive)
    archive.unlink()
    say("the nodes are ready")
