"""Makes commits as slow as on a cloud disk; it can be switched on and off."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from loadtest.bench.generators import BenchFailed

COMMIT_MS: Final = 2
_SOURCE: Final = Path(__file__).with_name("slowsync.c")


class SlowCommits:
    """A library for PostgreSQL's environment, built by the machine's C compiler."""

    def __init__(self, folder: Path) -> None:
        """Take the folder of the library and its switch; nothing is built yet."""
        self._library, self._flag = folder / "slowsync.so", folder / "slow"

    def environment(self) -> Mapping[str, str]:
        """Build the library, and return the variables that load it; none without a compiler."""
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            return {}
        words = ["-O2", "-shared", "-fPIC", "-o", str(self._library), str(_SOURCE), "-ldl"]
        process = subprocess.run(  # noqa: S603 words of our own
            [compiler, *words], capture_output=True, text=True, check=False
        )
        if process.returncode:
            raise BenchFailed(f"the C compiler failed: {process.stderr.strip()[-400:]}")
        return {
            "LD_PRELOAD": str(self._library),
            "SLOWSYNC_FLAG": str(self._flag),
            "SLOWSYNC_US": str(COMMIT_MS * 1000),
        }

    @property
    def missing(self) -> str | None:
        """Return why commits cannot be made slow; None if they can. After `environment`."""
        return None if self._library.exists() else "it needs a C compiler (cc or gcc)"

    def turn(self, *, on: bool) -> None:
        """Switch the delay of COMMIT_MS per commit on or off. Raises BenchFailed."""
        if on and self.missing:
            raise BenchFailed(f"no slow commits: {self.missing}")
        if on:
            self._flag.touch()
        else:
            self._flag.unlink(missing_ok=True)
