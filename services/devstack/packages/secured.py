"""PostgreSQL and Redis with TLS, from Debian's packages: the embedded ones are built without."""

from pathlib import Path

from devstack.packages.release import Release

OURS = r"postgresql(-.*)?|redis-.*"
# Without the compiler of queries (100 MB, PostgreSQL runs without) and what scripts in Perl need.
LIBRARIES = r"lib(?!llvm|.*perl).*|zlib1g"
RELEASE = Release("secured", 1, ("postgresql", "redis-server"), f"{OURS}|{LIBRARIES}", OURS)


def postgresql() -> Path:
    """Return the folder `bin` of the newest PostgreSQL in the release."""
    folders = RELEASE.fetch().glob("usr/lib/postgresql/*/bin")
    return max(folders, key=lambda path: int(path.parent.name))


def redis_server() -> Path:
    """Return the path of Debian's redis-server, which speaks TLS."""
    return RELEASE.fetch() / "usr" / "bin" / "redis-server"


def libraries(release: Path) -> str:
    """Return LD_LIBRARY_PATH of a release, or of a copy of it."""
    folders = (release / "usr" / "lib", release / "lib")
    return ":".join(str(path) for folder in folders for path in folder.glob("*-linux-gnu"))
