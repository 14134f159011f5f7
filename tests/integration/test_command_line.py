"""How every tool treats its output, an interruption and a wrong argument."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from devstack.ports import free_port
from integration.handles import Database
from integration.shop import Shop
from orders import cli
from upstreams.process import running

SERVICES = Path(cli.__file__).parents[1]


@pytest.fixture(scope="module")
def shop(database: Database) -> Iterator[Shop]:
    with running("inventory", free_port()) as stock, running("payment", free_port()) as till:
        shop = Shop(database, stock, till)
        shop.environ |= {"ORDERS_LOG_LEVEL": "info", "ORDERS_UPSTREAM_RETRIES": "1"}
        shop.empty()
        yield shop
        shop.close()


def started(shop: Shop, *words: str, **environ: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "orders", *words],
        cwd=SERVICES,
        env={**os.environ, **shop.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("reconcile", "--json"), b"integrity.doubted"),
        (("trace", "4711", "--json"), b"upstream.retried"),
    ],
)
def test_the_answer_goes_to_stdout_and_log_lines_to_stderr(
    shop: Shop, words: tuple[str, ...], line: bytes
) -> None:
    shop.capture(4711)
    environ = {"ORDERS_PAYMENT_URL": "http://127.0.0.1:9"} if words[0] == "trace" else {}
    output, err = started(shop, *words, **environ).communicate(timeout=60)
    msgspec.json.decode(output)
    assert line in err


def test_a_reader_that_leaves_ends_a_command_without_a_traceback(shop: Shop) -> None:
    process = started(shop, "settings")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 141


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Make programs receive SIGINT, even if the tests run in the background, which ignores it."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("words", [("trace", "4711"), ("reconcile",)])
def test_an_interruption_ends_a_command_that_waits_for_payment(
    shop: Shop, words: tuple[str, ...]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = started(shop, *words, ORDERS_PAYMENT_URL=url)
        with silent.accept()[0] as connection:
            assert connection.recv(4096)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 130
            process.communicate()


@pytest.mark.parametrize("text", ["99999999d", "999999999d", "0001-01-01T00:00:00+14:00"])
def test_a_time_before_the_first_year_is_refused(shop: Shop, text: str) -> None:
    code, _, err = shop.command("reconcile", "--since", text)
    assert code == 1
    assert "expected 2h, 3d" in err
