"""Clocks that are off: libfaketime from Debian's package, unpacked into the user's cache."""

from pathlib import Path
from typing import Final

from devstack.packages import cache, debian

_RECIPE: Final = 1
_PACKAGE: Final = "libfaketime"


def library() -> Path:
    """Give the library, fetched once. Raises debian.FetchFailed."""
    folder = cache.keep(f"faketime-{debian.system()}-{_RECIPE}", _unpack)
    return next(folder.glob("usr/lib/*/faketime/libfaketimeMT.so.1"))


def environment(offset_s: float) -> dict[str, str]:
    """Return the variables that set a process's wall clock off; timers go on as they are."""
    return {
        "LD_PRELOAD": str(library()),
        "FAKETIME": f"{offset_s:+.0f}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


def _unpack(folder: Path) -> None:
    if not debian.supported():
        message = "libfaketime is fetched with apt, which is not on this machine"
        raise debian.FetchFailed(message)
    debian.fetch_exactly((_PACKAGE,), folder)
