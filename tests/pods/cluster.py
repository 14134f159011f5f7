"""One cluster of one real node, with DNS and metrics, that leaves nothing behind."""

import fcntl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import yaml
from control_plane import network, node, required
from control_plane.api import Api
from control_plane.plane import Broken, ControlPlane

from images import workshop
from pods import images

_LOCK: Final = Path("/run/orders-node.lock")
_ADDONS: Final = Path(__file__).parent / "addons"
_BEGAN: Final = time.monotonic()


def say(text: str) -> None:
    """Tell how far it is."""
    sys.stderr.write(f"  {time.monotonic() - _BEGAN:6.1f} s  {text}\n")
    sys.stderr.flush()


@contextmanager
def running() -> Iterator[tuple[ControlPlane, Api]]:
    """Build what is missing, start everything, and remove it, also after a failure."""
    node.check_tools()
    names = list(_images())
    with _alone():
        node.clear()
        node.STATE.mkdir(mode=0o700)
        plane = _plane()
        machine = node.Node(
            plane, required.tool("kubelet"), required.tool("kube-proxy"), images.PAUSE
        )
        try:
            network.lay()
            say("starting the control plane")
            plane.start()
            plane.start_scheduler()
            _start(machine, names)
            with plane.session() as session:
                api = Api(session, plane.url)
                _add(api)
                yield plane, api
        finally:
            say("removing the node")
            machine.stop()
            plane.stop()
            node.clear()


def _images() -> Iterator[str]:
    for name in images.every():
        say(f"image {name}")
        yield name


def _plane() -> ControlPlane:
    folder = node.STATE / "plane"
    return ControlPlane(required.control_plane(), folder, network.HOST, network.SERVICES)


def _start(machine: node.Node, names: list[str]) -> None:
    archive = node.STATE / "images.tar"
    say("packing the images")
    workshop.save(names, archive)
    say("starting the node and importing them")
    machine.start(archive)
    archive.unlink()
    say("the node is ready")


def _add(api: Api) -> None:
    """Bring DNS and metrics, and wait for them."""
    for file in sorted(_ADDONS.glob("*.yaml")):
        for manifest in yaml.safe_load_all(file.read_text()):
            api.apply(manifest)
    api.wait(lambda: all(_available(api, name) for name in ("coredns", "metrics-server")))
    say("CoreDNS and metrics-server are ready")


def _available(api: Api, deployment: str) -> bool:
    status = api.get("apps/v1", "deployments", "kube-system", deployment)["status"]
    return bool(status.get("availableReplicas"))


@contextmanager
def _alone() -> Iterator[None]:
    with _LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Broken("another run has the node: wait for its end") from None
        yield
