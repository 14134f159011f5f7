"""A Java runtime: the machine's, else Debian's package, unpacked into the user's cache."""

import os
import shutil
from pathlib import Path

from devstack.packages import cache, debian

# Raise it when what is unpacked changes, so that older caches are left alone.
RECIPE = 1
# What a program without sound, fonts and printers needs.
PACKAGES = ("openjdk-17-jre-headless", "zlib1g")


def command() -> tuple[str, ...]:
    """Return how to call Java 11 or later, fetching it where there is none.

    Raises: debian.FetchFailed when there is none and it cannot be fetched.
    """
    installed = shutil.which("java")
    if installed:
        return (installed,)
    release = cache.keep(f"java-{debian.system()}-{RECIPE}", unpack)
    libraries = ":".join(str(path) for path in release.glob("**/*-linux-gnu"))
    program = next(release.glob("usr/lib/jvm/*/bin/java"))
    return ("env", f"LD_LIBRARY_PATH={libraries}", str(program))


def unpack(folder: Path) -> None:
    """Fetch and unpack; keep the list of what was taken beside it."""
    if not debian.supported():
        message = "Java is fetched with apt, which is not on this machine: install Java 11 or later"
        raise debian.FetchFailed(message)
    files = debian.fetch_exactly(PACKAGES, folder)
    lead_inside(folder)
    (folder / "packages.txt").write_text("\n".join(files) + "\n")


def lead_inside(folder: Path) -> None:
    """Make links to absolute paths (the configuration in /etc) lead to the unpacked files."""
    for link in filter(Path.is_symlink, folder.rglob("*")):
        target = link.readlink()
        inside = folder / target.relative_to("/") if target.is_absolute() else None
        if inside is not None and inside.exists():
            link.unlink()
            link.symlink_to(os.path.relpath(inside, link.parent))
