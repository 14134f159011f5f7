"""PgBouncer from Debian's package, unpacked into the user's cache."""

from pathlib import Path

from devstack.packages import cache, debian

# Raise it when what is unpacked changes, so that older caches are left alone.
RECIPE = 1
LIBRARIES = r"lib.*"


def release() -> Path:
    """Give the folder with the unpacked package, fetching it once.

    Raises: debian.FetchFailed when it is not cached and cannot be fetched.
    """
    return cache.keep(f"pgbouncer-{debian.system()}-{RECIPE}", unpack)


def unpack(folder: Path) -> None:
    """Fetch and unpack; keep the list of what was taken beside it."""
    if not debian.supported():
        message = "PgBouncer is fetched with apt, which is not on this machine"
        raise debian.FetchFailed(message)
    files = debian.fetch(("pgbouncer",), LIBRARIES, "pgbouncer", folder)
    (folder / "packages.txt").write_text("\n".join(files) + "\n")
