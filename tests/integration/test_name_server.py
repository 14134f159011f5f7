"""A name server that does not answer costs the order path no more time than its servers do."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.serving import SERVICES

pytestmark = pytest.mark.failover

TESTS = Path(__file__).parents[1]
SILENT = "127.0.0.53"
# As a pod's: each name is tried with each domain.
RESOLVER = f"nameserver {SILENT}\nsearch a.example b.example\noptions ndots:5\n"


@pytest.fixture
def resolver(tmp_path: Path) -> Iterator[Path]:
    """Give a resolv.conf whose only name server takes questions and answers none."""
    path = tmp_path / "resolv.conf"
    path.write_text(RESOLVER)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        try:
            server.bind((SILENT, 53))
            subprocess.run(_elsewhere(path, "true"), check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"needs port 53 and a mount namespace of its own: {error}")
        yield path


def _elsewhere(resolver: Path, *argv: str) -> list[str]:
    """Return what runs a command with another resolv.conf than the machine's."""
    mount = f'mount --bind "{resolver}" /etc/resolv.conf && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", mount, "sh", *argv]


def waits(resolver: Path, *arguments: str) -> dict[str, float]:
    environment = {name: value for name, value in os.environ.items() if name != "RES_OPTIONS"}
    process = subprocess.run(
        _elsewhere(resolver, sys.executable, "-m", "integration.unanswered_names", *arguments),
        env=environment | {"PYTHONPATH": f"{SERVICES}:{TESTS}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    measured: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return measured


def test_no_part_waits_longer_for_a_name_than_for_its_server(resolver: Path) -> None:
    measured = waits(resolver)
    slack_s = 1.5
    assert measured["session"] < 2 + slack_s
    assert measured["pool"] < 2 + slack_s
    assert measured["pool again"] < slack_s, "a request waited for a server known to be down"
    assert measured["redis"] < 0.05 + slack_s
    assert measured["upstream"] < 1 + slack_s


def test_a_look_up_of_any_process_ends_within_seconds(resolver: Path) -> None:
    assert waits(resolver, "library")["library"] < 8, "20 s by the C library's own default"
