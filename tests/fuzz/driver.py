"""Send generated inputs to the server and check its answers against the HTTP RFCs."""

import fcntl
import re
import socket
import struct
import termios
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from fuzz.inputs import Input, generate

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
_SHOWN = re.compile(rb'(\{"method":.*?\})(?=HTTP/1|\Z)', re.DOTALL)
# What a server may say to bytes of strangers; 500 is none of it. 503: cut off.
_ALLOWED = {100, 200, 400, 408, 411, 413, 417, 503}


class WrongAnswer(AssertionError):
    """Make the input again from its seed: the server's answer to it is not the one to give."""


def send(path: Path, case: Input) -> bytes:
    """Send an input and return all that came back; the server closes, because we do."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        return exchange(connection, case.pieces)


def exchange(connection: socket.socket, pieces: Sequence[bytes]) -> bytes:
    """Send pieces one by one, end sending, and return all that came back."""
    try:
        for piece in pieces:
            connection.sendall(piece)
            _wait_until_read(connection)
        connection.shutdown(socket.SHUT_WR)
    except (BrokenPipeError, ConnectionResetError, OSError):
        pass  # refused before its end
    return _read_all(connection)


def _wait_until_read(connection: socket.socket) -> None:
    """Make pieces arrive one by one; give up after a moment (the server may have closed)."""
    until = time.monotonic() + 0.02
    unread = bytearray(4)
    while time.monotonic() < until:
        fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, unread)
        if struct.unpack("i", unread)[0] == 0:
            return


def _read_all(connection: socket.socket) -> bytes:
    answer = bytearray()
    try:
        while block := connection.recv(65_536):
            answer += block
    except ConnectionResetError:
        pass
    return bytes(answer)


def check(path: Path, seed: int) -> Counter[int]:
    """Send the input of a seed; return its statuses. Raises WrongAnswer, OSError."""
    case = generate(seed)
    answer = send(path, case)
    statuses = [int(status) for status in _STATUS.findall(answer)]
    if not set(statuses) <= _ALLOWED:
        raise WrongAnswer(f"seed {seed}: {statuses}")
    if case.expected is not None:
        _compare(seed, case, answer, statuses)
    return Counter(statuses)


def _compare(seed: int, case: Input, answer: bytes, statuses: list[int]) -> None:
    expected = [e for e in case.expected or () if e["method"] != "HEAD"]
    if _too_long(case):
        return
    actual = [msgspec.json.decode(text) for text in _SHOWN.findall(answer)]
    if actual != expected or set(statuses) != {200}:
        raise WrongAnswer(f"seed {seed}: {statuses}, {_difference(actual, expected)}")


def _difference(actual: list[Any], expected: list[Any]) -> str:
    if len(actual) != len(expected):
        return f"{len(actual)} answers instead of {len(expected)}"
    pairs = [
        (name, answer.get(name), request[name])
        for answer, request in zip(actual, expected, strict=True)
        for name in request
        if answer.get(name) != request[name]
    ]
    return "; ".join(f"{name}: {answer!r} instead of {value!r}" for name, answer, value in pairs)[
        :500
    ]


def _too_long(case: Input) -> bool:
    """Return whether a field is beyond the server's 8 KiB, or there are more than 128 of them."""
    return any(
        len(value) > 8192 or len(e["fields"]) > 128
        for e in case.expected or ()
        for value in e["fields"].values()
    )
