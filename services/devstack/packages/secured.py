"""PostgreSQL and Redis with TLS, from Debian's packages: the embedded ones are built without."""

from pathlib import Path

from devstack.packages import cache, debian

# Raise it when what is unpacked changes, so that older caches are left alone.
RECIPE = 1
ROOTS = ("postgresql", "redis-server")
OURS = r"postgresql(-.*)?|redis-.*"
# Without the compiler of queries (100 MB, PostgreSQL runs without) and what scripts in Perl need.
LIBRARIES = r"lib(?!llvm|.*perl).*|zlib1g"


def release() -> Path:
    """Give the folder with the unpacked packages, fetching them once.

    Raises: debian.FetchFailed when they are not cached and cannot be fetched.
    """
    return cache.keep(name(), unpack)


def cached() -> bool:
    """Tell whether nothing need be fetched."""
    return cache.kept(name())


def name() -> str:
    """Name the cached folder after the distribution, the machine and the recipe."""
    return f"secured-{debian.system()}-{RECIPE}"


def unpack(folder: Path) -> None:
    """Fetch and unpack; keep the list of what was taken beside it."""
    if not debian.supported():
        message = "PostgreSQL and Redis with TLS are fetched with apt, which is not on this machine"
        raise debian.FetchFailed(message)
    files = debian.fetch(ROOTS, f"{OURS}|{LIBRARIES}", OURS, folder)
    (folder / "packages.txt").write_text("\n".join(files) + "\n")


def postgresql() -> Path:
    """Name the folder `bin` of the newest PostgreSQL in the release."""
    return max(release().glob("usr/lib/postgresql/*/bin"), key=lambda path: int(path.parent.name))


def redis_server() -> Path:
    """Name Redis' program."""
    return release() / "usr" / "bin" / "redis-server"


def libraries(release: Path) -> str:
    """Give LD_LIBRARY_PATH of a release, or of a copy of it."""
    folders = (release / "usr" / "lib", release / "lib")
    return ":".join(str(path) for folder in folders for path in folder.glob("*-linux-gnu"))
