"""A cluster with a real node, and both charts installed on it."""

from collections.abc import Callable, Iterator

import pytest
from control_plane import required
from control_plane.api import Api
from control_plane.plane import ControlPlane

from charts.helm import Helm
from pods import cluster
from pods.shop import Shop


@pytest.fixture(scope="session")
def running() -> Iterator[tuple[ControlPlane, Api]]:
    """Run the cluster."""
    with cluster.running() as made:
        yield made


@pytest.fixture(scope="session")
def shop(running: tuple[ControlPlane, Api]) -> Shop:
    """Give the environment's namespace; the first test installs it."""
    return Shop(running[1])


@pytest.fixture(scope="session")
def helm(running: tuple[ControlPlane, Api], tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Give the real Helm, as the cluster's administrator."""
    return Helm(required.tool("helm"), tmp_path_factory.mktemp("helm"), running[0].kubeconfig)


_FIGURES = pytest.StashKey[dict[str, str]]()


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Note a line of the table that docs/kubernetes.md shows."""
    noted = request.config.stash.setdefault(_FIGURES, {})
    return lambda name, value: noted.update({name: value})


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the table."""
    for name, value in config.stash.get(_FIGURES, {}).items():
        terminalreporter.write_line(f"| {name} | {value} |")
