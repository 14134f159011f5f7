"""Runs a container as the operator's pods do: read-only, without capabilities, as 10001."""

import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from images.workshop import FOLDER, STORAGE

PODMAN: Final = (
    "podman",
    *STORAGE,
    f"--tmpdir={FOLDER / 'libpod'}",
    "--runtime=runc",
    "--cgroup-manager=cgroupfs",
    "--events-backend=none",
)
_LIKE_A_POD: Final = (
    "--network=host",
    "--read-only",
    "--read-only-tmpfs=false",
    "--tmpfs=/tmp:size=64m,mode=1777",
    "--passwd=false",  # in a pod, the user has no name
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    # The default is more than a machine may allow.
    "--ulimit=nofile=16384:16384",
    "--ulimit=nproc=8192:8192",
)
STOP_S: Final = 60


class Container:
    """A container that runs until it is stopped."""

    def __init__(self, image: str, command: tuple[str, ...], environ: Mapping[str, str]) -> None:
        self.name = f"orders-{uuid.uuid4().hex[:12]}"
        self._folder = Path(tempfile.mkdtemp(prefix="orders-container-"))
        self._log = self._folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                _command(image, command, environ, f"--name={self.name}"),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        """The output so far."""
        return self._log.read_text(errors="replace")

    def execute(self, *command: str, stdin: bytes = b"") -> str:
        """Run a command inside, as `kubectl exec` does; return its output."""
        argv = (*PODMAN, "exec", "--interactive", self.name, *command)
        process = subprocess.run(argv, input=stdin, capture_output=True, check=False, timeout=120)
        assert process.returncode == 0, process.stderr.decode()
        return process.stdout.decode()

    def stop(self) -> int:
        """Send SIGTERM; return the exit code. SIGKILL, 137, comes after a minute."""
        stop = (*PODMAN, "stop", f"--time={STOP_S}", self.name)
        subprocess.run(stop, capture_output=True, check=False)
        return self.process.wait(STOP_S)

    def clear(self) -> None:
        """End it, if it still runs, and forget it."""
        subprocess.run((*PODMAN, "rm", "--force", self.name), capture_output=True, check=False)
        self.process.wait(STOP_S)
        shutil.rmtree(self._folder)


@contextmanager
def running(
    image: str, *command: str, environ: Mapping[str, str] | None = None
) -> Iterator[Container]:
    """Run a container inside the block."""
    container = Container(image, command, environ or {})
    try:
        yield container
    finally:
        container.clear()


def run(
    image: str, *command: str, environ: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a container to its end."""
    argv = _command(image, command, environ or {})
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)


def wait_for(container: Container, text: str, within_s: float = 60) -> None:
    """Wait until a container has written something."""
    end = time.monotonic() + within_s
    while text not in container.log:
        assert container.process.poll() is None, container.log
        assert time.monotonic() < end, container.log
        time.sleep(0.1)


def _command(
    image: str, command: tuple[str, ...], environ: Mapping[str, str], *options: str
) -> list[str]:
    variables = (f"--env={name}={value}" for name, value in environ.items())
    return [*PODMAN, "run", "--rm", *_LIKE_A_POD, *options, *variables, image, *command]
