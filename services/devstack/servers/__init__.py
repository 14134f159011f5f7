"""One module per kind of server: its files, its command and its readiness check."""

from importlib.util import find_spec
from pathlib import Path


def installed(package: str) -> Path:
    """Return the folder of an installed package without importing it. Raises: FileNotFoundError."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        message = f"the package {package} is not installed: run `make up`, which installs the lock"
        raise FileNotFoundError(message)
    return Path(spec.origin).parent
