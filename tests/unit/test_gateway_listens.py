"""The gateway listens on IPv4 and IPv6, on a socket each."""

import socket
from pathlib import Path

import pytest

from gateway.configuration import Site, render
from gateway.main import listening


def test_both_families_have_a_socket_of_their_own(tmp_path: Path) -> None:
    """On one socket every IPv4 client would be of one IPv6 network, and share its limits."""
    site = Site(
        listen=("8080", "[::]:8080"), api=("127.0.0.1:1",), folder=tmp_path, access_log="off"
    )
    lines = [line.strip() for line in render(site).splitlines() if "backlog" in line]
    assert lines == [
        "listen 8080 default_server backlog=4096;",
        "listen [::]:8080 default_server backlog=4096;",
    ]


def test_ipv6_is_used_where_the_kernel_has_it() -> None:
    try:
        socket.socket(socket.AF_INET6).close()
    except OSError:
        pytest.skip("this kernel has no IPv6")
    assert listening(8080) == ("8080", "[::]:8080")
