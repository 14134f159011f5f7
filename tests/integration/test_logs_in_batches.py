"""Lines of requests are written several at a time: none is lost, torn or out of order."""

import socket
import subprocess
import sys

import msgspec

SCRIPT = """
import structlog
from orders.settings import LogSettings
from orders.telemetry import logs

logs.configure(LogSettings(format="json"), "test")
logs.start_batching()
for number in range(100):
    logs.write("info", "request.completed", {"number": number})
structlog.get_logger().warning("redis.bypassed", number=100)
logs.write("info", "request.completed", {"number": 101})
logs.flush_lines()
logs.write("info", "request.completed", {"number": 102})
logs.stop_batching()
logs.write("info", "request.completed", {"number": 103})
logs.write("info", "request.completed", {"number": 104})
"""


def test_lines_of_requests_are_written_whole_and_in_order() -> None:
    packets = written_by(SCRIPT)
    lines = [msgspec.json.decode(line) for packet in packets for line in packet.splitlines()]
    assert [line["number"] for line in lines] == list(range(105))
    assert all(packet.endswith(b"\n") and len(packet) <= 4096 for packet in packets)
    assert all(len(packet) > 4096 - 300 for packet in packets[:-6])
    # The warning, the flush and the end take along the lines that wait.
    assert [numbers(packet) for packet in packets[-5:]] == [[100], [101], [102], [103], [104]]


def written_by(script: str) -> list[bytes]:
    """Run a script and return what it wrote to stdout, one entry for each write."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, subprocess.Popen([sys.executable, "-c", script], stdout=its.fileno()) as process:
        its.close()
        packets = list(iter(lambda: ours.recv(65_536), b""))
        assert process.wait(60) == 0
    return packets


def numbers(packet: bytes) -> list[int]:
    return [msgspec.json.decode(line)["number"] for line in packet.splitlines()]
