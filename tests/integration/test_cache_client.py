"""The Redis client: one round trip, one budget, and no waiting for a Redis that is gone."""

import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from integration.handles import Server
from machine_time import machine_time_s
from orders.cache.address import RedisTarget
from orders.cache.client import Redis, RedisBypassed, RedisDown
from orders.cache.connection import Connected
from orders.settings import CacheSettings

BUDGET_S = 0.05
LATE_S = BUDGET_S + 0.5  # the budget, and what a busy machine adds


def client(url: str, *, timeout_s: float = BUDGET_S, retry_after_s: float = 0.2) -> Redis:
    return Redis(CacheSettings(url=url, timeout_s=timeout_s, retry_after_s=retry_after_s))


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    """Give a connected client with more patience than the service has."""
    redis = client(redis_url, timeout_s=2)
    assert redis.warm(within_s=5)
    yield redis
    redis.close()


@pytest.fixture
def hasty(redis_url: str) -> Iterator[Redis]:
    """Give a connected client with the budget of the service."""
    redis = client(redis_url)
    assert redis.warm(within_s=5)
    yield redis
    redis.close()


def took_s(call: Callable[[], Any]) -> float:
    began_s = machine_time_s()
    call()
    return machine_time_s() - began_s


def fails(call: Callable[[], Any], error: type[Exception] = RedisDown) -> None:
    with pytest.raises(error):
        call()


def test_several_commands_are_one_round_trip(redis: Redis) -> None:
    assert redis.run(("SET", "a", 1), ("INCR", "a"), ("GET", "a"), ("GET", "none")) == [
        b"OK",
        2,
        b"2",
        None,
    ]


def test_a_script_the_server_does_not_know_is_loaded_on_the_way(redis: Redis) -> None:
    sha = redis.register(b"return {KEYS[1], tonumber(ARGV[1])}")
    redis.call("SCRIPT", "FLUSH")
    command = (b"EVALSHA", sha, 1, "k", 5)
    for _ in range(2):
        assert redis.run(("PING",), command, ("PING",)) == [b"PONG", [b"k", 5], b"PONG"]


def test_large_replies_arrive_whole(redis: Redis) -> None:
    redis.call("SET", "large", b"x" * 1_000_000)
    assert len(redis.call("GET", "large")) == 1_000_000


def test_a_refused_command_closes_nothing(redis: Redis) -> None:
    redis.call("SET", "text", "x")
    fails(lambda: redis.call("INCR", "text"))
    assert redis.call("GET", "text") == b"x"


def test_user_password_and_database_come_from_the_url(redis: Redis, redis_url: str) -> None:
    redis.call("ACL", "SETUSER", "cache", "on", ">s3cret/@", "~*", "+@all")
    address = redis_url.removeprefix("redis://").removesuffix("/0")
    other = client(f"redis://cache:s3cret%2F%40@{address}/3")
    other.warm()
    other.call("SET", "here", 1)
    assert other.call("ACL", "WHOAMI") == b"cache"
    assert redis.call("GET", "here") is None
    wrong = client(f"redis://cache:guess@{address}/3")
    assert not wrong.warm()
    fails(lambda: wrong.call("PING"))


def test_each_thread_has_its_own_connection(redis: Redis) -> None:
    def echo(number: int) -> bool:
        return all(redis.call("ECHO", f"{number}.{i}") == b"%d.%d" % (number, i) for i in range(50))

    with ThreadPoolExecutor(20) as threads:
        assert all(threads.map(echo, range(20)))


def test_a_frozen_server_costs_one_budget_and_then_nothing(valkey: Server, hasty: Redis) -> None:
    valkey.pause()
    try:
        assert took_s(lambda: fails(lambda: hasty.call("PING"))) < LATE_S
        assert took_s(lambda: fails(lambda: hasty.call("PING"), RedisBypassed)) < BUDGET_S
    finally:
        valkey.resume()
    time.sleep(0.25)
    assert hasty.call("ECHO", "not a late PONG") == b"not a late PONG"


def test_while_redis_is_away_one_caller_tries_and_all_others_pass_by(
    valkey: Server, redis_url: str
) -> None:
    redis = client(redis_url, timeout_s=0.5, retry_after_s=1)
    assert redis.warm(within_s=5)
    valkey.pause()
    try:
        fails(lambda: redis.call("PING"))
        time.sleep(1)

        def attempt(_: int) -> bool:
            with pytest.raises(RedisDown) as failure:
                redis.call("PING")
            return not isinstance(failure.value, RedisBypassed)

        with ThreadPoolExecutor(20) as threads:
            tried = list(threads.map(attempt, range(20)))
    finally:
        valkey.resume()
        redis.close()
    assert sum(tried) == 1


def test_a_restart_is_not_noticed_by_who_does_not_ask_meanwhile(
    valkey: Server, redis: Redis
) -> None:
    valkey.kill()
    valkey.start()
    assert redis.call("PING") == b"PONG"


def test_a_dead_server_fails_at_once_and_is_found_again(valkey: Server, hasty: Redis) -> None:
    valkey.kill()
    try:
        assert took_s(lambda: fails(lambda: hasty.call("PING"))) < LATE_S
    finally:
        valkey.start()
    time.sleep(0.25)
    assert hasty.call("PING") == b"PONG"


def test_a_server_that_is_loading_is_bypassed() -> None:
    with served(lambda link: answer(link, b"-LOADING soon\r\n")) as url:
        redis = client(url)
        fails(lambda: redis.call("PING"))
        fails(lambda: redis.call("PING"), RedisBypassed)


def test_a_reply_in_drops_does_not_stretch_the_budget() -> None:
    def drip(link: socket.socket) -> None:
        link.recv(1000)
        for byte in b"$1000\r\n" + b"x" * 1000:
            link.sendall(bytes([byte]))
            time.sleep(0.01)

    with served(drip) as url:
        redis = client(url)
        assert took_s(lambda: fails(lambda: redis.call("PING"))) < LATE_S


def test_a_server_that_speaks_another_protocol_is_bypassed() -> None:
    with served(lambda link: answer(link, b"HTTP/1.1 400 Bad Request\r\n\r\n")) as url:
        fails(lambda: client(url).call("PING"))


class SlowlyNamed(NamedTuple):
    """A server whose name is looked up for a second."""

    server: RedisTarget

    def connect(self, timeout_s: float, *, protocol: int = 2) -> Connected:
        time.sleep(1)
        return self.server.connect(timeout_s, protocol=protocol)

    def primaries(self) -> frozenset[str]:
        return self.server.primaries()


def test_a_slow_name_service_is_within_the_budget_and_serves_the_next_call(
    redis_url: str,
) -> None:
    redis = client(redis_url)
    assert redis.target is not None
    redis.target = SlowlyNamed(redis.target)
    assert took_s(lambda: fails(lambda: redis.call("PING"))) < LATE_S
    wait_until(lambda: serves(redis))


def serves(redis: Redis) -> bool:
    try:
        return bool(redis.call("PING") == b"PONG")
    except RedisDown:
        return False


def test_a_call_that_is_interrupted_leaves_no_reply_for_the_next(
    valkey: Server, redis: Redis
) -> None:
    """A handler of SIGALRM or SIGABRT, as gunicorn has, raises in the middle of a request."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    previous_handler = signal.signal(signal.SIGALRM, interrupt)
    valkey.pause()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            redis.call("ECHO", "first")
    finally:
        signal.signal(signal.SIGALRM, previous_handler)
        valkey.resume()
    assert redis.call("ECHO", "second") == b"second"


def test_a_forked_process_does_not_share_the_connection(redis: Redis) -> None:
    client_id = redis.call("CLIENT", "ID")
    readable, writable = os.pipe()
    if not (child := os.fork()):
        os.write(writable, b"%d" % redis.call("CLIENT", "ID"))
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(readable, 100)) != client_id
    assert redis.call("CLIENT", "ID") == client_id
    os.close(readable)
    os.close(writable)


def test_closing_ends_the_connections(redis_url: str, redis: Redis) -> None:
    other = client(redis_url)
    other.warm()
    number = other.call("CLIENT", "ID")
    other.close()
    wait_until(lambda: redis.call("CLIENT", "LIST", "ID", number) == b"")


def test_tls_is_within_the_budget_too(redis_url: str, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    silent = threading.Event()
    port = int(redis_url.rpartition(":")[2].partition("/")[0])

    def relay(link: socket.socket) -> None:
        with (
            context.wrap_socket(link, server_side=True) as front,
            socket.create_connection(("127.0.0.1", port)) as back,
        ):
            while request := front.recv(10_000):
                back.sendall(request)
                if not silent.is_set():
                    front.sendall(back.recv(10_000))

    with served(relay) as url:
        redis = client(f"rediss{url.removeprefix('redis')}?ssl_ca_certs={certificate}")
        assert redis.warm(within_s=5)
        assert redis.call("ECHO", "secret") == b"secret"
        silent.set()
        assert took_s(lambda: fails(lambda: redis.call("PING"))) < LATE_S


@contextmanager
def served(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Run a server that calls a function with each connection; yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            while True:
                try:
                    link, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=handle, args=(link,), daemon=True).start()

        def handle(link: socket.socket) -> None:
            try:
                with link:
                    serve(link)
            except OSError:
                return

        threading.Thread(target=run, daemon=True).start()
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        server.shutdown(socket.SHUT_RDWR)


def answer(link: socket.socket, reply: bytes) -> None:
    while link.recv(1000):
        link.sendall(reply)


def make_certificate(folder: Path) -> Path:
    """Write a self-signed certificate for 127.0.0.1, and its key, into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "cache")])
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(alternative, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "cache.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


def wait_until(holds: Callable[[], bool], within_s: float = 30) -> None:
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.005)
