"""Requirements of tests: found, built in CI, or a reason to skip."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from control_plane import binaries


def control_plane() -> Path:
    """Return the folder with the control plane's programs."""
    return _required(binaries.find, "control")


def tool(name: str) -> Path:
    """Return the path of one program of the cache."""
    group = next(entry.group for entry in binaries.PROGRAMS if entry.name == name)
    return _required(partial(binaries.program, name), group)


def _required(find: Callable[[], Path], group: str) -> Path:
    try:
        return find()
    except binaries.Missing as error:
        if not os.environ.get("CI"):
            pytest.skip(str(error))
        binaries.build(group)
        return find()
