"""Clocks that are off: libfaketime from Debian's package, unpacked into the user's cache."""

from pathlib import Path
from typing import Final

from devstack.packages.release import Release

_RELEASE: Final = Release("faketime", 1, ("libfaketime",))


def library() -> Path:
    """Give the library, fetched once. Raises debian.FetchFailed."""
    return next(_RELEASE.fetch().glob("usr/lib/*/faketime/libfaketimeMT.so.1"))


def environment(offset_s: float) -> dict[str, str]:
    """Return the variables that set a process's wall clock off; timers go on as they are."""
    return {
        "LD_PRELOAD": str(library()),
        "FAKETIME": f"{offset_s:+.0f}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
