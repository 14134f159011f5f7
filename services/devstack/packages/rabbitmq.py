"""RabbitMQ and Erlang from Debian's packages, unpacked into the user's cache."""

import re
from pathlib import Path

from devstack.packages.release import Release

# The plugins that the node loads. Erlang looks for every module in every folder of its path. A
# folder with only these and their dependencies halves the start (10 s to 5 s).
PLUGINS = ("rabbit", "rabbitmq_prelaunch", "rabbitmq_management")
OURS = r"rabbitmq-server|erlang-.*"
LIBRARIES = r"lib.*|zlib1g"
SERVER = "usr/lib/rabbitmq/lib/rabbitmq_server-*"


def link_plugins(folder: Path) -> None:
    """Make the folder `plugins` with links to the needed plugins only."""
    plugins = {path.name.rpartition("-")[0]: path for path in folder.glob(f"{SERVER}/plugins/*-*")}
    links = folder / "plugins"
    links.mkdir()
    for name in needed(plugins, PLUGINS):
        links.joinpath(plugins[name].name).symlink_to(
            Path("..") / plugins[name].relative_to(folder)
        )


def needed(plugins: dict[str, Path], roots: tuple[str, ...]) -> set[str]:
    """Return the plugins and all that their `applications` name."""
    names: set[str] = set()
    queue = [name for name in roots if name in plugins]
    while queue:
        name = queue.pop()
        names.add(name)
        queue += [
            n
            for n in applications(plugins[name] / "ebin" / f"{name}.app")
            if n in plugins.keys() - names
        ]
    return names


def applications(app: Path) -> list[str]:
    """Return the applications that an Erlang application file names."""
    match = re.search(r"\{applications,\s*\[(.*?)\]", app.read_text(), re.DOTALL)
    return re.findall(r"\w+", match[1]) if match else []


RELEASE = Release(
    "rabbitmq",
    2,
    ("rabbitmq-server",),
    f"{OURS}|{LIBRARIES}",
    OURS,
    finish=link_plugins,
    advice=(
        "to use a broker of your own set ORDERS_AMQP_URL (amqp://user:password@host:5672/vhost) "
        "and ORDERS_MANAGEMENT_URL (http://user:password@host:15672)"
    ),
)
