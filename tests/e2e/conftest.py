"""A cluster with real nodes, and the tools to use it."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from charts.helm import Helm
from e2e import cluster
from e2e.shop import Shop
from e2e.terminal import run
from kube import required


@pytest.fixture(scope="session")
def running() -> Iterator[cluster.Cluster]:
    """Run the cluster for the whole session."""
    with cluster.running() as started:
        yield started


@pytest.fixture(scope="session")
def shop(running: cluster.Cluster) -> Shop:
    """Give the environment's namespace; the first test installs it."""
    return Shop(running.api)


@pytest.fixture(scope="session")
def helm(running: cluster.Cluster, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Give the real Helm, as the cluster's administrator."""
    return Helm(required.tool("helm"), tmp_path_factory.mktemp("helm"), running.kubeconfig)


@pytest.fixture(scope="session")
def kubectl(running: cluster.Cluster) -> Callable[..., str]:
    """Give the real kubectl, as the cluster's administrator."""
    return partial(run, required.tool("kubectl"), f"--kubeconfig={running.kubeconfig}")
