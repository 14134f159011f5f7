"""Fixtures that the runs share: messages to the person who waits."""

import sys
from collections.abc import Callable

import pytest


@pytest.fixture
def say(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Print at once, also while output is captured: a run of minutes shows where it is."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def write(text: str) -> None:
        with capture.global_and_fixture_disabled():
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    return write
