"""kind's nodes in Docker, and the images of a registry: as `docs/kubernetes.md` tells people."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import yaml

from control_plane.plane import AUTOSCALERS, Broken
from e2e import images
from e2e.terminal import Failed, run, say
from images import workshop
from kube import required
from kube.existing import ExistingCluster

_NAME: Final = "orders-e2e"
_CONFIG: Final = workshop.REPOSITORY / "kind-config.yaml"
_SERVICES: Final = "10.96.0.0/16"  # kind's own choice
_RANGES: Final = "{{range .IPAM.Config}}{{.Subnet}} {{end}}"
_ADDRESS: Final = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"


def possible() -> bool:
    """Return whether a Docker engine answers."""
    try:
        return shutil.which("docker") is not None and bool(run("docker", "info"))
    except Failed:
        return False


@contextmanager
def running() -> Iterator[ExistingCluster]:
    """Build the images, make the cluster, and remove it, also after a failure."""
    if os.geteuid() != 0:
        raise Broken("root: this machine needs a route to the Services of the cluster")
    kind, named = required.tool("kind"), f"--name={_NAME}"
    names = list(_images())
    with tempfile.TemporaryDirectory(prefix="orders-kind-") as folder, ExitStack() as undone:
        kubeconfig, config = Path(folder, "kubeconfig"), Path(folder, "kind.yaml")
        config.write_text(yaml.safe_dump(_config()))
        removed = (kind, "delete", "cluster", named, f"--kubeconfig={kubeconfig}")
        run(*removed)
        undone.callback(run, *removed)
        say("making the cluster")
        options = (f"--config={config}", f"--kubeconfig={kubeconfig}", "--wait=5m")
        run(kind, "create", "cluster", named, *options)
        ready = ("wait", "nodes", "--all", "--for=condition=Ready", "--timeout=5m")
        run(required.tool("kubectl"), f"--kubeconfig={kubeconfig}", *ready)
        say("loading the images")
        run(kind, "load", "docker-image", named, *names)
        address = run("docker", "inspect", f"--format={_ADDRESS}", f"{_NAME}-worker").strip()
        run("ip", "route", "replace", _SERVICES, "via", address)  # a killed run leaves it
        undone.callback(run, "ip", "route", "delete", _SERVICES, "via", address)
        cluster = ExistingCluster(kubeconfig)
        undone.callback(cluster.stop)
        yield cluster


def outside() -> str:
    """Return the range that this machine's requests come from, and the nodes' own."""
    ranges = run("docker", "network", "inspect", "kind", f"--format={_RANGES}").split()
    return next(address_range for address_range in ranges if "." in address_range)


def _config() -> object:
    """Read the configuration that people use, but for ports that their own cluster may have."""
    config = yaml.safe_load(_CONFIG.read_text())
    for node in config["nodes"]:
        node.pop("extraPortMappings", None)
    arguments = [{"name": name, "value": value} for name, value in AUTOSCALERS.items()]
    quick = {"kind": "ClusterConfiguration", "controllerManager": {"extraArgs": arguments}}
    config["kubeadmConfigPatches"] = [yaml.safe_dump(quick)]
    return config


def _images() -> Iterator[str]:
    revision = run("git", "-C", workshop.REPOSITORY, "rev-parse", "HEAD").strip()
    for folder, repository in workshop.IMAGES.items():
        dockerfile = workshop.REPOSITORY / folder / "Dockerfile"
        yield _built(
            f"{repository}:{workshop.TAG}", dockerfile, workshop.REPOSITORY, f"REVISION={revision}"
        )
    metrics = required.tool("metrics-server")
    dockerfile = images.SERVERS / "binary" / "Dockerfile"
    yield _built(images.METRICS_SERVER, dockerfile, metrics.parent, f"PROGRAM={metrics.name}")


def _built(name: str, dockerfile: Path, context: Path, argument: str) -> str:
    say(f"image {name}")
    run(
        "docker",
        "build",
        f"--build-arg={argument}",
        f"--file={dockerfile}",
        f"--tag={name}",
        context,
    )
    return name
