"""The per-user folder where fetched programs are kept for later runs and other clones."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def root() -> Path:
    """Return the cache folder: XDG_CACHE_HOME, or .cache in the home folder."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    return Path(base) / "orderservice-devstack"


def kept(name: str) -> bool:
    """Return whether the folder `name` is in the cache."""
    return (root() / name).exists()


def keep(name: str, make: Callable[[Path], None]) -> Path:
    """Return the cached folder `name`; call `make` if it does not exist.

    If two runs make it at once, the first to finish wins. A partly made folder is never visible.
    """
    folder = root() / name
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder.parent))
    try:
        make(scratch)
        scratch.chmod(0o755)
        move(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def move(scratch: Path, folder: Path) -> None:
    """Rename into place, unless another run did so before."""
    try:
        scratch.rename(folder)
    except OSError:
        if not folder.exists():
            raise
