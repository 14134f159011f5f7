"""Build our meinheld: the published source, checked by hash, with the patches beside this file.

`make up`, the tests and the image build it here and nowhere else. Standard library only: it runs
before anything is installed, and where no `patch` program is.
"""

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from meinheld_wheel.patch import apply

PATCHES = Path(__file__).with_name("patches")
# Setting CFLAGS takes the place of Python's own, and without NDEBUG meinheld's workers abort.
# The rest is for compilers that refuse undeclared functions (gcc 14, clang 16).
CFLAGS = "-O2 -DNDEBUG -D_GNU_SOURCE -include sys/uio.h"
SANITIZED_CFLAGS = (
    "-O1 -g -DNDEBUG -D_GNU_SOURCE -include sys/uio.h -fsanitize=address -fno-omit-frame-pointer"
)


class BuildFailed(Exception):
    """Read the output of the compiler or of pip in the message."""


def build(lock: Path, folder: Path, *, sanitized: bool = False) -> None:
    """Put the wheel into `folder`; `lock` names the source's version and hash.

    CC, LDSHARED and further CFLAGS are taken from the environment. `sanitized` compiles with
    AddressSanitizer, for tests. Raises BuildFailed, PatchFailed.
    """
    flags = SANITIZED_CFLAGS if sanitized else CFLAGS
    environment = {
        **os.environ,
        "MEINHELD_NOGREEN": "1",
        "CFLAGS": f"{flags} {os.environ.get('CFLAGS', '')}".strip(),
    }
    with tempfile.TemporaryDirectory() as scratch:
        source = _patched_source(lock, Path(scratch), environment)
        options = ("--no-cache-dir", "--no-deps", "--no-build-isolation", "--use-pep517")
        _pip(("wheel", *options, "--wheel-dir", str(folder), str(source)), environment)


def identity(lock: Path, *, sanitized: bool = False) -> str:
    """Return what tells one build from another: source, patches, options, Python."""
    parts = [entry(lock), SANITIZED_CFLAGS if sanitized else CFLAGS, str(sys.version_info[:2])]
    parts += [patch.read_text() for patch in series()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def series() -> list[Path]:
    """Return the patches in the order in which they apply."""
    return sorted(PATCHES.glob("*.patch"))


def entry(lock: Path) -> str:
    """Return the lock's entry of meinheld, its hash included."""
    entries = re.split(r"^(?=\w)", lock.read_text(), flags=re.MULTILINE)
    return next(text for text in entries if text.startswith("meinheld="))


def _patched_source(lock: Path, scratch: Path, environment: dict[str, str]) -> Path:
    requirement = scratch / "requirement.txt"
    requirement.write_text(entry(lock))
    options = ("--no-deps", "--require-hashes", "--no-binary=:all:", "--no-build-isolation")
    _pip(
        ("download", "--no-cache-dir", *options, "--dest", str(scratch), "-r", str(requirement)),
        environment,
    )
    (archive,) = scratch.glob("meinheld-*.tar.gz")
    with tarfile.open(archive) as source:
        source.extractall(scratch)  # noqa: S202 its hash was checked
    folder = scratch / archive.name.removesuffix(".tar.gz")
    for patch in series():
        apply(patch.read_text(), folder)
    return folder


def _pip(arguments: Sequence[str], environment: dict[str, str]) -> None:
    argv = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    pip = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)  # noqa: S603
    if pip.returncode != 0:
        raise BuildFailed(f"pip {arguments[0]} failed:\n{(pip.stderr or pip.stdout)[-3000:]}")
