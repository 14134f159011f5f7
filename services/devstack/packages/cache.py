"""The per-user folder where fetched programs are kept for later runs and other clones."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def root() -> Path:
    """Name the cache folder: XDG_CACHE_HOME, or .cache in the home folder."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    return Path(base) / "orderservice-devstack"


def kept(name: str) -> bool:
    """Tell whether the folder `name` is there already."""
    return (root() / name).exists()


def keep(name: str, make: Callable[[Path], None]) -> Path:
    """Give the cached folder `name`, made by `make` if it is not there.

    Two runs at once both make it and the first to finish wins: nothing is ever seen half made.
    """
    folder = root() / name
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder.parent))
    try:
        make(part)
        part.chmod(0o755)
        move(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def move(part: Path, folder: Path) -> None:
    """Rename into place, unless another run was quicker."""
    try:
        part.rename(folder)
    except OSError:
        if not folder.exists():
            raise
