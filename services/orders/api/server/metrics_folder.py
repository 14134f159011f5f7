"""The folder in which prometheus_client keeps the metrics of several processes, a file for each."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

MEMORY: Final = "/dev/shm"  # noqa: S108 files here never touch a disk, which may be read-only
_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"


def memory_folder() -> str | None:
    """Return a folder in memory to put temporary files in; None: use the default one."""
    return MEMORY if os.access(MEMORY, os.W_OK | os.X_OK) else None


@contextmanager
def metrics_folder() -> Iterator[Path]:
    """Collect the metrics of this process and its children in a fresh folder, removed at the end.

    Enter before anything imports prometheus_client: it decides on import where values live.
    Raises RuntimeError otherwise.
    """
    if "prometheus_client.values" in sys.modules:
        raise RuntimeError("metrics_folder() comes too late: prometheus_client is imported.")
    owner = os.getpid()
    folder = Path(tempfile.mkdtemp(prefix="orders-metrics-", dir=memory_folder()))
    os.environ[_VARIABLE] = str(folder)
    try:
        yield folder
    finally:
        if os.getpid() == owner:  # a forked worker gets here as well
            remove(folder)


def remove(folder: Path) -> None:
    """Remove the folder, if it is still there."""
    shutil.rmtree(folder, ignore_errors=True)
