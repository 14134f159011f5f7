"""One cluster of two nodes, with DNS and metrics; it is removed at the end.

Where a Docker engine answers it is kind's, else one of our own.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import yaml

from control_plane.plane import Broken
from e2e import bare, kind
from e2e.terminal import say
from kube.api import Api

_LOCK: Final = Path("/run/orders-node.lock")
_ADDONS: Final = Path(__file__).parent / "addons"
# Our images, in place of those that a registry would give.
_VALUES: Final = Path(__file__).parent / "values.yaml"


class Cluster(msgspec.Struct, frozen=True):
    """A cluster that runs, and the values by which the environment's chart runs on it.

    `outside`: the range that this machine's requests come from, which are nobody's by the charts.
    `heeds_policies`: whether its network enforces NetworkPolicies.
    """

    kubeconfig: Path
    api: Api
    values: tuple[Path, ...]
    outside: str
    heeds_policies: bool


@contextmanager
def running() -> Iterator[Cluster]:
    """Make one, and remove it."""
    on_kind = kind.possible()
    provider = kind if on_kind else bare
    say("on kind" if on_kind else "on nodes of our own: no Docker engine answers")
    with _alone(), provider.running() as plane, plane.session() as session:
        api = Api(session, plane.url)
        _add(api, ("metrics-server",) if on_kind else ("coredns", "metrics-server"))
        values = (_VALUES,) if on_kind else (_VALUES, bare.VALUES)
        yield Cluster(plane.kubeconfig, api, values, provider.outside(), heeds_policies=on_kind)


def _add(api: Api, addons: tuple[str, ...]) -> None:
    """Install the add-ons that the cluster lacks, and wait for them."""
    for name in addons:
        for manifest in yaml.safe_load_all((_ADDONS / f"{name}.yaml").read_text()):
            api.apply(manifest)
    api.wait(lambda: all(_available(api, name) for name in addons))
    say(f"{' and '.join(addons)}: ready")


def _available(api: Api, deployment: str) -> bool:
    status = api.get("apps/v1", "deployments", "kube-system", deployment)["status"]
    return bool(status.get("availableReplicas"))


@contextmanager
def _alone() -> Iterator[None]:
    with _LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Broken("another run has the nodes: wait for its end") from None
        yield
