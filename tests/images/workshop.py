"""Builds the images without a registry: bases out of Debian packages, then the Dockerfiles.

The bases stand in for the official Python images that the Dockerfiles name: the same release of
Debian and of Python's language, and likewise one with a compiler and one without.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
HOME: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
FOLDER: Final = HOME / "orderservice-images"
STORAGE: Final = (
    f"--root={FOLDER / 'storage'}",
    f"--runroot={FOLDER / 'run'}",
    "--storage-driver=overlay",
)
IMAGES: Final = {
    "services": "localhost/orderservice",
    "operator": "localhost/orderservice-operator",
    "loadtest": "localhost/orderservice-loadtest",
}
TAG: Final = "dev"

_RELEASE: Final = "bookworm"
_PYTHON: Final = ("python3", "ca-certificates")
_COMPILER: Final = ("python3-dev", "python3-pip", "python3-venv", "gcc", "libc6-dev")
_UNREAD: Final = tuple(
    f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "locale")
)
BUILD_BASE: Final = ("minbase", *_PYTHON, *_COMPILER)
# The official image has apt, and with it C++'s library, which greenlet needs.
RUN_BASE: Final = ("essential", *_PYTHON, "libstdc++6")
# How this machine reaches package indexes, for the builds' pip; no part of any image.
_NETWORK: Final = ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")
_PROGRAMS: Final = ("mmdebstrap", "buildah", "podman", "runc")


class Missing(Exception):
    """Install what the message names, or use a machine with Docker."""


def check_tools() -> None:
    """Name what is missing. Raises Missing."""
    absent = [name for name in _PROGRAMS if shutil.which(name) is None]
    if absent:
        raise Missing(f"apt-get install {' '.join(absent)} (Debian 12)")
    if os.geteuid() != 0:
        raise Missing("root: mmdebstrap and overlay mounts need it here")


def build(folder: str, target: str = "") -> str:
    """Build the image of a folder, or another target of its Dockerfile; return its name."""
    check_tools()
    name = f"{IMAGES[folder]}:{TAG}{target and f'-{target}'}"
    bases = {"BUILD_IMAGE": base(BUILD_BASE), "RUN_IMAGE": base(RUN_BASE)}
    arguments = bases | {"REVISION": _output("git", "rev-parse", "HEAD")}
    return build_from(REPOSITORY / folder / "Dockerfile", REPOSITORY, name, arguments, target)


def build_from(
    dockerfile: Path, context: Path, name: str, arguments: Mapping[str, str], target: str = ""
) -> str:
    """Build one image; return its name."""
    _buildah(
        "build",
        "--isolation=chroot",
        "--layers",
        *(f"--build-arg={key}={value}" for key, value in arguments.items()),
        *(f"--volume={file}:{file}:ro" for file in _NETWORK if Path(file).exists()),
        *([f"--target={target}"] if target else []),
        f"--file={dockerfile}",
        f"--tag={name}",
        str(context),
    )
    return name


def base(contents: tuple[str, ...]) -> str:
    """Return a base image, made once for all builds. The first entry is mmdebstrap's variant."""
    variant, *packages = contents
    key = hashlib.sha256(" ".join((_RELEASE, *contents)).encode()).hexdigest()[:12]
    name = f"localhost/python-{variant}:{key}"
    if _succeeds("buildah", *STORAGE, "inspect", "--type=image", name):
        return name
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        archive = f"{scratch}/root.tar"
        options = [f"--variant={variant}", f"--include={','.join(packages)}", *_UNREAD]
        _run("mmdebstrap", "--quiet", *options, _RELEASE, archive)
        container = _buildah("from", "scratch")
        _buildah("add", "--quiet", container, archive, "/")
        _buildah("config", "--env=PATH=/usr/local/bin:/usr/bin:/bin", container)
        _buildah("commit", "--quiet", "--rm", container, name)
    return name


def size_bytes(image: str) -> int:
    """Return the size of all layers, uncompressed."""
    size = _output("podman", *STORAGE, "image", "inspect", "--format={{.Size}}", image)
    return int(size)


def save(images: Sequence[str], archive: Path) -> None:
    """Write images as one archive that containerd and Docker import; what they share, once."""
    archive.unlink(missing_ok=True)
    form = ("--format=docker-archive", "--multi-image-archive")
    _run("podman", *STORAGE, "save", "--quiet", *form, f"--output={archive}", *images)


def _buildah(*arguments: str) -> str:
    return _output("buildah", *STORAGE, *arguments)


def _output(*argv: str) -> str:
    process = subprocess.run(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    return process.stdout.strip().splitlines()[-1] if process.stdout.strip() else ""


def _run(*argv: str) -> None:
    subprocess.run(argv, cwd=REPOSITORY, check=True, stdout=sys.stderr)


def _succeeds(*argv: str) -> bool:
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0
