"""Download and unpack Debian packages with a private apt state."""

import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

STATUS = Path("/var/lib/dpkg/status")
NOTHING = "(?!)"  # matches no name
# Hooks that would act on the system's own apt folders, and indexes that we do not need.
UNWANTED = (
    "APT::Update::P",
    "DPkg::",
    "Acquire::IndexTargets::deb::DEP-11",
    "Dir",
    "APT::Periodic",
)


class FetchFailed(Exception):
    """Connect to a Debian mirror, or use what its message suggests instead."""


def system() -> str:
    """Return the distribution and the architecture for which packages are fetched."""
    release = platform.freedesktop_os_release()
    return f"{release.get('ID', 'linux')}{release.get('VERSION_ID', '')}-{platform.machine()}"


def fetch(
    roots: tuple[str, ...], folder: Path, pattern: str | None = None, missing_pattern: str = NOTHING
) -> list[str]:
    """Unpack `roots` and their dependencies into `folder`; return the names of the package files.

    `pattern` selects dependencies by name; without it only the roots are taken. A package is
    fetched only if the system lacks it, or if its name matches `missing_pattern`.
    Raises: FetchFailed.
    """
    if not all(map(shutil.which, ("apt-get", "apt-config", "dpkg-deb"))):
        message = "apt is not on this machine"
        raise FetchFailed(message)
    with tempfile.TemporaryDirectory(prefix="devstack-apt-") as scratch:
        apt = private_apt(Path(scratch), missing_pattern)
        apt("update")
        names: Iterable[str] = roots
        if pattern is not None:
            expression = f"{pattern}|{'|'.join(map(re.escape, roots))}"
            names = [name for name in closure(apt, roots) if re.fullmatch(expression, name)]
        return unpack(apt, names, Path(scratch), folder)


def unpack(apt: Callable[..., str], names: Iterable[str], scratch: Path, folder: Path) -> list[str]:
    """Download packages and unpack them; return the names of their files."""
    apt("download", *names)
    files = sorted(scratch.joinpath("packages").glob("*.deb"))
    for file in files:
        command(["dpkg-deb", "-x", str(file), str(folder)])
    return [file.name for file in files]


def private_apt(scratch: Path, missing_pattern: str) -> Callable[..., str]:
    """Return an apt command whose lists, cache and list of installed packages are in `scratch`."""
    for name in ("state/lists/partial", "cache/archives/partial", "packages"):
        (scratch / name).mkdir(parents=True)
    (scratch / "status").write_text(status_without(missing_pattern))
    settings = command(["apt-config", "dump"])
    (scratch / "apt.conf").write_text(configuration(scratch, settings))
    environment = {**os.environ, "APT_CONFIG": str(scratch / "apt.conf"), "LC_ALL": "C"}

    def apt(verb: str, *args: str) -> str:
        argv = ["apt-get", "-q", verb, *args]
        return command(argv, cwd=scratch / "packages", environment=environment)

    return apt


def configuration(scratch: Path, settings: str) -> str:
    """Copy the machine's apt settings (proxy, certificates) without its hooks and folders."""
    lines = [line for line in settings.splitlines() if not line.startswith(UNWANTED)]
    options = {
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::parts": "/dev/null",
        "Dir::State": scratch / "state",
        "Dir::State::status": scratch / "status",
        "Dir::Cache": scratch / "cache",
        "Dir::Log": scratch,
        "APT::Sandbox::User": "root",  # the scratch folder is closed to the user _apt
        "APT::Install-Recommends": "false",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "Debug::NoLocking": "true",
    }
    return "\n".join([*lines, *(f'{key} "{value}";' for key, value in options.items())]) + "\n"


def status_without(missing_pattern: str, status: Path = STATUS) -> str:
    """Return the list of installed packages without those whose name matches `missing_pattern`."""
    stanzas = status.read_text(errors="replace").split("\n\n") if status.exists() else []
    name = re.compile(rf"Package: (?:{missing_pattern})$", re.MULTILINE)
    return "\n\n".join(stanza for stanza in stanzas if not name.search(stanza))


def closure(apt: Callable[..., str], roots: tuple[str, ...]) -> list[str]:
    """Return the packages that apt would install for `roots`, by name."""
    plan = apt("install", "--simulate", "--yes", *roots)
    return re.findall(r"^Inst (\S+)", plan, re.MULTILINE)


def command(
    argv: list[str], cwd: Path | None = None, environment: dict[str, str] | None = None
) -> str:
    """Run a command and wait for it. Raises: FetchFailed with the end of its output."""
    process = subprocess.run(
        argv, capture_output=True, text=True, cwd=cwd, env=environment, check=False, timeout=300
    )
    if process.returncode != 0:
        words = (process.stderr or process.stdout).strip()[-600:]
        message = f"{' '.join(argv[:3])} failed with exit code {process.returncode}: {words}"
        raise FetchFailed(message)
    return process.stdout
