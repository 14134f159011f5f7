"""Make .venv from the locks: `python3 -m devstack.bootstrap`.

Standard library only: it runs with the machine's Python, before anything is installed. It does
nothing if the environment already matches the locks.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from functools import partial
from pathlib import Path

import meinheld_wheel
from devstack.packages import cache, debian, rabbitmq
from devstack.report import ProgressReport

REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT = REPOSITORY / ".venv"
STAMP = ENVIRONMENT / "orderservice.stamp"
LOCKS = tuple(REPOSITORY / f"requirements{part}.lock" for part in ("", "-bootstrap", "-compiler"))
PYTHONS = ((3, 11), (3, 12))


class SetupFailed(Exception):
    """Do what the message says, then run the same command again."""


def main() -> int:
    """Update the environment; print an expected failure and return 1."""
    output = ProgressReport()
    try:
        refuse_other_machines()
        use_supported_python()
        identity = fingerprint()
        if STAMP.exists() and STAMP.read_text() == identity:
            return 0
        refuse_link(ENVIRONMENT)
        with Fetch(output):
            set_up(output)
        STAMP.write_text(identity)
    except SetupFailed as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    return 0


def refuse_other_machines() -> None:
    """Raise SetupFailed, naming what is supported, on any other machine."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        message = (
            "the local platform runs on x86-64 Linux only "
            f"(this is {platform.system()} on {platform.machine()}): "
            "use a Debian 12 container or virtual machine"
        )
        raise SetupFailed(message)


def refuse_link(environment: Path) -> None:
    """Keep what a symbolic link leads to: making an environment begins with emptying its folder.

    Raises: SetupFailed.
    """
    if environment.is_symlink():
        raise SetupFailed(
            f"{environment} is a symbolic link to {environment.resolve()}, "
            "which would be emptied: remove the link, then run this again"
        )


def use_supported_python() -> None:
    """Replace this process by a supported Python if it runs another one. Raises: SetupFailed."""
    if sys.version_info[:2] in PYTHONS:
        return
    for major, minor in reversed(PYTHONS):
        python = shutil.which(f"python{major}.{minor}")
        if python:
            os.execv(python, [python, "-m", "devstack.bootstrap"])  # noqa: S606 - no shell is wanted
    message = (
        f"Python 3.11 or 3.12 is required (this is {sys.version.split()[0]}): "
        "install it, or pass its path: make PYTHON=/path/to/python3.12 ..."
    )
    raise SetupFailed(message)


def fingerprint() -> str:
    """Return a hash of what the environment depends on: locks, our packages, Python, folder."""
    import tomllib  # older Pythons, which look for a newer one here, do not have it

    digest = hashlib.sha256()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    digest.update(f"{project['project']['scripts']} {project['tool']['setuptools']}".encode())
    for lock in LOCKS:
        digest.update(lock.read_bytes())
    digest.update(meinheld_wheel.identity(LOCKS[0]).encode())
    digest.update(f"{sys.version} {sys.base_prefix} {ENVIRONMENT}".encode())
    return digest.hexdigest()


def set_up(output: ProgressReport) -> None:
    """Delete the environment and create it again."""
    start = time.monotonic()
    version = ".".join(map(str, sys.version_info[:3]))
    output.event("environment", "making", None, f".venv with Python {version}")
    make_environment()
    install_tools()
    output.event("environment", "installing", time.monotonic() - start, "requirements.lock")
    install_packages(output)
    # The repository's packages and the command `orders`.
    run(uv("--offline", "--no-deps", "--no-build-isolation", "--editable", str(REPOSITORY)))
    output.event("environment", "ready", time.monotonic() - start)


def make_environment() -> None:
    """Create an empty virtual environment with pip. Raises: SetupFailed."""
    STAMP.unlink(missing_ok=True)
    advice = "on Debian: apt install python3-venv"
    # Not sys.executable: called by the environment's own Python, that is about to be removed.
    python = getattr(sys, "_base_executable", sys.executable)
    run([python, "-m", "venv", "--clear", str(ENVIRONMENT)], advice=advice)


def install_tools() -> None:
    """Install uv and the build backend with pip, by hash, from files cached for all clones."""
    pip = [program("python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--require-hashes", "-r", str(LOCKS[1])]

    def download(folder: Path) -> None:
        run([*pip, "download", "--only-binary=:all:", "--dest", str(folder), *options])

    files = cache.keep(f"bootstrap-{short_hash(LOCKS[1])}", download)
    run([*pip, "install", "--no-index", "--find-links", str(files), *options])


def install_packages(output: ProgressReport) -> None:
    """Install the lock: meinheld from our own wheel, the rest from uv's cache or the index."""
    lock = lock_without_meinheld()
    install = ["--no-deps", "--require-hashes", "-r", str(lock)]
    if not succeeds(uv("--offline", *install)):
        run(uv(*install))
    wheels = compiled(output).glob("*.whl")
    run(uv("--offline", "--no-deps", *map(str, wheels)))


def lock_without_meinheld() -> Path:
    """Write the lock's entries without meinheld, which we compile, to a separate file."""
    entries = re.split(r"^(?=\w)", LOCKS[0].read_text(), flags=re.MULTILINE)
    path = ENVIRONMENT / "requirements-wheels.txt"
    path.write_text("".join(entry for entry in entries if not entry.startswith("meinheld=")))
    return path


def compiled(output: ProgressReport, *, sanitized: bool = False) -> Path:
    """Return the folder with meinheld's wheel, compiled once for all clones.

    uv is not used: its cache ignores a build's environment and keeps the objects of earlier builds.
    A meinheld that was compiled with greenlet crashes.
    """
    identity = meinheld_wheel.identity(LOCKS[0], sanitized=sanitized)
    name = f"meinheld-{sys.implementation.cache_tag}-{identity}"

    def build(folder: Path) -> None:
        output.event("environment", "compiling", None, "meinheld, once")
        options = ["--sanitized"] if sanitized else []
        argv = [program("python"), "-m", "meinheld_wheel", str(LOCKS[0]), str(folder), *options]
        sources = {"PYTHONPATH": str(REPOSITORY / "services")}
        run(argv, environment=compiler(output) | sources)

    return cache.keep(name, build)


def uv(*args: str) -> list[str]:
    """Return the command for `uv pip install`."""
    return [program("uv"), "pip", "install", "--quiet", "--python", program("python"), *args]


def program(name: str) -> str:
    """Return the path of a program of the environment."""
    return str(ENVIRONMENT / "bin" / name)


def compiler(output: ProgressReport) -> dict[str, str]:
    """Return the variables that meinheld's build needs, fetching a missing compiler or headers."""
    flags = os.environ.get("CFLAGS", "")
    environment: dict[str, str] = {}
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        flags += f" {python_headers(output)}"
    if not shutil.which(os.environ.get("CC", "cc")):
        # Not Python's own linker options, some of which zig does not know; any x86-64, no checks.
        environment["CC"] = f"{zig(output)} cc -mcpu=baseline -fno-sanitize=undefined"
        environment["LDSHARED"] = f"{environment['CC']} -shared"
    return environment | {"CFLAGS": flags.strip()}


def python_headers(output: ProgressReport) -> str:
    """Fetch this Python's headers privately; return the compiler options that find them."""
    version = "{}.{}".format(*sys.version_info[:2])
    package = f"libpython{version}-dev"
    name = f"{package}-{debian.system()}"
    if not cache.kept(name):
        output.event("environment", "fetching", None, f"{package}: no Python.h here")
    try:
        folder = cache.keep(name, partial(unpack, package))
    except debian.FetchFailed as error:
        message = f"Python.h is missing and could not be fetched; install {package}.\n{error}"
        raise SetupFailed(message) from error
    include = folder / "usr" / "include"
    return f"-I{include / f'python{version}'} -I{include}"


def unpack(package: str, folder: Path) -> None:
    """Fetch one Debian package without its dependencies."""
    debian.fetch((package,), folder)


def zig(output: ProgressReport) -> Path:
    """Fetch a C compiler from the package index, by hash; return its program."""
    name = f"ziglang-{short_hash(LOCKS[2])}"
    if not cache.kept(name):
        output.event("environment", "fetching", None, "a C compiler (ziglang): no cc here")
    options = ["--no-deps", "--require-hashes", "-r", str(LOCKS[2])]

    def install(folder: Path) -> None:
        run(uv("--target", str(folder), *options), advice="or install a C compiler (gcc)")

    return cache.keep(name, install) / "ziglang" / "zig"


def short_hash(lock: Path) -> str:
    """Return a short hash that identifies a version of a lock."""
    return hashlib.sha256(lock.read_bytes()).hexdigest()[:12]


def run(argv: list[str], *, environment: dict[str, str] | None = None, advice: str = "") -> None:
    """Run a command and wait for it. Raises: SetupFailed with the end of its output."""
    process = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env=variables() | (environment or {}),
    )
    if process.returncode != 0:
        words = (process.stderr or process.stdout).strip()[-3000:]
        message = (
            f"{' '.join(argv[:5])} failed with exit code {process.returncode}\n{words}\n{advice}"
        )
        raise SetupFailed(message.strip())


def succeeds(argv: list[str]) -> bool:
    """Run a command and return whether it succeeded."""
    process = subprocess.run(
        argv, capture_output=True, check=False, env=variables(), cwd=REPOSITORY
    )
    return process.returncode == 0


def variables() -> dict[str, str]:
    """Return our environment, with pip's settings (mirror, certificates) translated for uv."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for pip_name, uv_name in (("PIP_INDEX_URL", "UV_DEFAULT_INDEX"), ("PIP_CERT", "SSL_CERT_FILE")):
        if pip_name in environment:
            environment.setdefault(uv_name, environment[pip_name])
    return environment


class Fetch:
    """Fetch RabbitMQ's packages on a thread while the environment is made."""

    def __init__(self, output: ProgressReport) -> None:
        """Report progress with the given function."""
        self.output = output
        self.thread = threading.Thread(target=self.fetch)
        self.needed = not os.environ.get("ORDERS_AMQP_URL") and not rabbitmq.RELEASE.cached()

    def __enter__(self) -> None:
        """Start the thread if something is missing."""
        if self.needed:
            self.output.event("rabbitmq", "fetching", None, "Debian packages, 35 MB, once")
            self.thread.start()

    def __exit__(self, *_: object) -> None:
        """Wait for the thread to end."""
        if self.needed:
            self.thread.join()

    def fetch(self) -> None:
        """Fetch the packages. A failure is only reported: not every command needs a broker."""
        start = time.monotonic()
        try:
            rabbitmq.RELEASE.fetch()
        except (debian.FetchFailed, OSError) as error:
            self.output.event("rabbitmq", "failed", None, str(error))
        else:
            self.output.event("rabbitmq", "fetched", time.monotonic() - start)


if __name__ == "__main__":
    sys.exit(main())
