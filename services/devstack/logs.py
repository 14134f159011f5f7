"""Show the logs of the components, each line with the name of its component."""

import sys
import time
from pathlib import Path

from devstack.program import tail

POLL_S = 0.2


def show(folder: Path, names: list[str], lines: int, *, follow: bool) -> int:
    """Print the last lines of the named logs (all, if none is named); `follow` continues."""
    files = {path.stem: path for path in sorted(folder.glob("*.log"))}
    unknown = [name for name in names if name not in files]
    if unknown or not files:
        available = ", ".join(files) or "none"
        print(
            f"no log of {', '.join(unknown) or 'anything'} in {folder}: there are {available}",
            file=sys.stderr,
        )
        return 2
    paths = {name: files[name] for name in names or files}
    positions = {name: path.stat().st_size for name, path in paths.items()}
    for name, path in paths.items():
        write(name, tail(path, lines))
    while follow:
        time.sleep(POLL_S)
        for name, path in paths.items():
            positions[name] = write_new(name, path, positions[name])
    return 0


def write_new(name: str, path: Path, position: int) -> int:
    """Print what was added after the position `position`; return the new end."""
    with path.open("rb") as file:
        file.seek(min(position, path.stat().st_size))
        content = file.read()
        write(name, content.decode("utf-8", "replace").splitlines())
        return file.tell()


def write(name: str, lines: list[str]) -> None:
    """Print lines of a component."""
    for line in lines:
        print(f"{name:<18} {line}", flush=True)
