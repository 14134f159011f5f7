"""Every image that the node runs: ours by their Dockerfiles, the servers out of packages.

The servers stand in for the official images that values-dev names: no registry is needed.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from images import workshop
from kube import required

SERVERS: Final = Path(__file__).parent / "servers"
PAUSE: Final = "localhost/pause:e2e"
COREDNS: Final = "localhost/coredns:e2e"
METRICS_SERVER: Final = "localhost/metrics-server:e2e"
POSTGRESQL: Final = "localhost/postgresql:e2e"
RABBITMQ: Final = "localhost/rabbitmq:e2e"
VALKEY: Final = "localhost/valkey:e2e"


class Recipe(msgspec.Struct, frozen=True):
    """A Dockerfile of `servers`, Debian packages below it, and where its files come from."""

    name: str
    folder: str
    packages: tuple[str, ...] = workshop.RUN_BASE
    program: Path | None = None


def every() -> Iterator[str]:
    """Build them, one after the other; what has not changed is in buildah's cache."""
    yield from map(workshop.build, workshop.IMAGES)
    yield from map(_build, _recipes())


def _recipes() -> tuple[Recipe, ...]:
    return (
        Recipe(PAUSE, "pause"),
        Recipe(COREDNS, "binary", program=required.tool("coredns")),
        Recipe(METRICS_SERVER, "binary", program=required.tool("metrics-server")),
        Recipe(POSTGRESQL, "postgresql", ("essential", "postgresql-15")),
        Recipe(RABBITMQ, "rabbitmq", ("essential", "rabbitmq-server")),
        Recipe(VALKEY, "valkey", ("essential", "redis-server")),
    )


def _build(recipe: Recipe) -> str:
    dockerfile = SERVERS / recipe.folder / "Dockerfile"
    arguments = {"BASE": workshop.base(recipe.packages)}
    if recipe.program:
        arguments["PROGRAM"] = recipe.program.name
    context = recipe.program.parent if recipe.program else dockerfile.parent
    return workshop.build_from(dockerfile, context, recipe.name, arguments)
