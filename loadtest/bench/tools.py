"""The load generators: C programs, so that they are not what is measured.

pgbench comes with the locked PostgreSQL. wrk and redis-benchmark come from the machine, or from
Debian packages, unpacked privately.
"""

import os
import shutil
from typing import Final

from devstack.packages.release import Release

_PACKAGES: Final = {"wrk": "wrk", "redis-benchmark": "redis-tools"}
_RELEASE: Final = Release(
    "bench", 1, tuple(_PACKAGES.values()), r"lib.*|lua-.*|zlib1g", "|".join(_PACKAGES.values())
)


def program(name: str) -> str:
    """Return the path of a generator. Raises debian.FetchFailed if it cannot be fetched."""
    return shutil.which(name) or str(_RELEASE.fetch() / "usr/bin" / name)


def environment() -> dict[str, str]:
    """Return our environment, with the libraries that were unpacked for the generators."""
    if all(map(shutil.which, _PACKAGES)):
        return dict(os.environ)
    libraries = _RELEASE.fetch() / "usr/lib" / f"{os.uname().machine}-linux-gnu"
    return os.environ | {"LD_LIBRARY_PATH": str(libraries)}
