"""Run servers as an ordinary user: PostgreSQL refuses to run as root, and nginx should not."""

import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

NOBODY = 65534
# Keeps access to files that only root can read; refused inside a chroot and in most containers.
IN_USER_NAMESPACE = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")
# World-traversable on every Debian; used only when the state folder is not.
REACHABLE = Path("/var/tmp")  # noqa: S108 - a private folder is made below it, mode 0700


@functools.cache
def prefix() -> tuple[str, ...]:
    """Return the command that drops root's rights; empty for an ordinary user."""
    if os.geteuid() != 0:
        return ()
    return IN_USER_NAMESPACE if succeeds((*IN_USER_NAMESPACE, "true")) else AS_NOBODY


def folder(state: Path, name: str) -> Path:
    """Make the folder `name` of the state so that an unprivileged server can own it.

    If others cannot enter the state folder (root's home), the data is below /var/tmp, and the state
    folder has a link to it.
    """
    path = state / name
    if prefix() != AS_NOBODY:
        path.mkdir(parents=True, exist_ok=True)
        return path
    target = path if reachable(first_existing(state)) else outside(path)
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.chown(target, NOBODY, NOBODY)
    return target


def program_tree(tree: Path, state: Path) -> Path:
    """Return a copy of `tree` that the unprivileged user can read; `tree` itself if it can."""
    if prefix() != AS_NOBODY or reachable(tree):
        return tree
    copy = outside(state / "programs") / tree.name
    if not copy.exists():
        shutil.copytree(tree, copy.with_suffix(".part"), dirs_exist_ok=True, symlinks=True)
        copy.with_suffix(".part").rename(copy)
    open_to_all(copy.parent)
    return copy


def outside(link: Path, root: Path = REACHABLE) -> Path:
    """Make `link` point to a new folder in a place that all users can reach."""
    key = hashlib.sha256(str(link).encode()).hexdigest()[:16]
    target = root / f"orderservice-devstack-{key}"
    target.mkdir(exist_ok=True, mode=0o700)
    if target.is_symlink() or target.stat().st_uid not in {os.geteuid(), NOBODY}:
        raise PermissionError(f"{target} belongs to another user: remove it, or set DEVSTACK_STATE")
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        # Data of a state folder that was removed by hand: its servers know another password.
        shutil.rmtree(target)
        target.mkdir(mode=0o700)
        link.symlink_to(target)
    return target


def own(path: Path) -> None:
    """Give a file that root wrote to the unprivileged user."""
    if prefix() == AS_NOBODY:
        shutil.chown(path, NOBODY, NOBODY)


def open_to_all(path: Path) -> None:
    """Let all users read and enter a folder that contains only programs."""
    path.chmod(0o755)


def reachable(path: Path) -> bool:
    """Return whether the unprivileged user can enter or run `path`."""
    return succeeds((*AS_NOBODY, "test", "-x", str(path)))


def first_existing(path: Path) -> Path:
    """Return `path` or its nearest parent that exists."""
    return path if path.exists() else first_existing(path.parent)


def succeeds(argv: tuple[str, ...]) -> bool:
    """Run a short command and return whether it exits with 0."""
    try:
        return subprocess.run(argv, capture_output=True, timeout=10, check=False).returncode == 0
    except OSError:
        return False
