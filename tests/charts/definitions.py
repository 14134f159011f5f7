"""Definitions that other projects publish in Go modules: fetched and verified, not kept here."""

import subprocess
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from control_plane import go


class Module(NamedTuple):
    """One version of a module, with the hash that go.sum would have for it."""

    path: str
    version: str
    sum: str
    files: tuple[str, ...]


MODULES: Final = (
    Module(
        "github.com/cloudnative-pg/cloudnative-pg",
        "v1.28.0",
        "h1:vkv0a0ewDSfJOPJrsyUr4uczsxheReAWf/k171V0Dm0=",
        (
            "config/crd/bases/postgresql.cnpg.io_clusters.yaml",
            "config/crd/bases/postgresql.cnpg.io_poolers.yaml",
        ),
    ),
    Module(
        "github.com/rabbitmq/cluster-operator/v2",
        "v2.16.0",
        "h1:oYJm+1tXIatGHtiUWyN9hGdO+0eWsXA/j1b81wh0IqI=",
        ("config/crd/bases/rabbitmq.com_rabbitmqclusters.yaml",),
    ),
)


class _Download(msgspec.Struct, rename="pascal"):
    dir: Path
    sum: str


def files() -> list[Path]:
    """Return the definitions, fetched once into Go's own cache of modules."""
    return [
        folder / name for module in MODULES for folder in [_folder(module)] for name in module.files
    ]


def _folder(module: Module) -> Path:
    command = [*go.command(), "mod", "download", "-json", f"{module.path}@{module.version}"]
    with tempfile.TemporaryDirectory() as nowhere:  # no module of ours that would ask for others
        download = subprocess.run(
            command, cwd=nowhere, env=go.environment(), capture_output=True, check=True, timeout=300
        )
    fetched = msgspec.json.decode(
        download.stdout, type=_Download, dec_hook=lambda kind, value: kind(value)
    )
    assert fetched.sum == module.sum, f"{module.path} is not what it was"
    return fetched.dir
