"""Alertmanager with the routing sample of `observability/`."""

from functools import partial
from pathlib import Path

from devstack.component import Component, log_file, server_environment
from devstack.packages import prometheus
from devstack.services import answers
from devstack.settings import REPOSITORY, Settings

HOST = "127.0.0.1"
CONFIGURATION = REPOSITORY / "observability" / "alertmanager" / "alertmanager.yaml"


def component(settings: Settings) -> Component:
    """Describe Alertmanager, without peers; it starts only by name."""
    folder, port = settings.state / "alertmanager", settings.ports["alertmanager"]
    return Component(
        name="alertmanager",
        argv=(
            str(prometheus.program("prometheus-alertmanager")),
            f"--config.file={CONFIGURATION}",
            f"--storage.path={folder}",
            f"--web.listen-address={HOST}:{port}",
            "--cluster.listen-address=",
        ),
        environment=server_environment(settings.state),
        folder=folder,
        log=log_file(settings.state, "alertmanager"),
        address=f"{HOST}:{port}",
        ports={"DEVSTACK_ALERTMANAGER_PORT": port},
        prepare=partial(make_folder, folder),
        ready=partial(answers, port, "/-/ready"),
        optional=True,
    )


def make_folder(folder: Path) -> None:
    """Make its working folder with a link to its templates."""
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "sr"
    link.unlink(missing_ok=True)
    link.symlink_to(prometheus.usr())
