"""The load generators: C programs, so that they are not what is measured.

pgbench comes with the locked PostgreSQL; wrk and redis-benchmark from the machine or, unpacked
privately, from Debian.
"""

import os
import shutil
from pathlib import Path
from typing import Final

from devstack.packages import cache, debian

_PACKAGES: Final = {"wrk": "wrk", "redis-benchmark": "redis-tools"}
# Raise it when what is unpacked changes, so that older caches are left alone.
_RECIPE: Final = 1


def program(name: str) -> str:
    """Name a generator. Raises debian.FetchFailed when it neither is here nor can be fetched."""
    return shutil.which(name) or str(_fetched() / "usr/bin" / name)


def environment() -> dict[str, str]:
    """Return our environment, with the libraries that were unpacked for the generators."""
    if all(map(shutil.which, _PACKAGES)):
        return dict(os.environ)
    libraries = _fetched() / "usr/lib" / f"{os.uname().machine}-linux-gnu"
    return os.environ | {"LD_LIBRARY_PATH": str(libraries)}


def _fetched() -> Path:
    return cache.keep(f"bench-{debian.system()}-{_RECIPE}", _fetch)


def _fetch(folder: Path) -> None:
    packages = tuple(_PACKAGES.values())
    debian.fetch(packages, r"lib.*|lua-.*|zlib1g", "|".join(packages), folder)
