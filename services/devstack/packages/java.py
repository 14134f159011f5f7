"""A Java runtime: the machine's, else Debian's package, unpacked into the user's cache."""

import os
import shutil
from pathlib import Path

from devstack.packages.release import Release

# The libraries for a program without sound, fonts and printers.
PACKAGES = ("openjdk-17-jre-headless", "zlib1g")


def command() -> tuple[str, ...]:
    """Return how to call Java 11 or later, fetching it if there is none.

    Raises: debian.FetchFailed when there is none and it cannot be fetched.
    """
    installed = shutil.which("java")
    if installed:
        return (installed,)
    release = RELEASE.fetch()
    libraries = ":".join(str(path) for path in release.glob("**/*-linux-gnu"))
    program = next(release.glob("usr/lib/jvm/*/bin/java"))
    return ("env", f"LD_LIBRARY_PATH={libraries}", str(program))


def lead_inside(folder: Path) -> None:
    """Change links to absolute paths (the configuration in /etc) to the unpacked files."""
    for link in filter(Path.is_symlink, folder.rglob("*")):
        target = link.readlink()
        inside = folder / target.relative_to("/") if target.is_absolute() else None
        if inside is not None and inside.exists():
            link.unlink()
            link.symlink_to(os.path.relpath(inside, link.parent))


RELEASE = Release("java", 1, PACKAGES, finish=lead_inside, advice="install Java 11 or later")
