"""TLS on real servers: a wrong server is refused, with the reason in the error."""

import contextlib
import shutil
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlencode

import pytest
import requests
from redis.exceptions import RedisError

from devstack.certificates import Authority, Pair, Tls
from devstack.ports import free_port
from devstack.program import Program
from devstack.servers import pgbouncer
from devstack.servers import rabbitmq as server
from integration.handles import Database, Postgres, RabbitMQ
from integration.serving import eventually
from integration.tls_front import Front
from orders import verified
from orders.cache.address import Login
from orders.cache.client import Redis, RedisDown
from orders.database import connection
from orders.errors import Transient, Unavailable
from orders.messaging.management import Management
from orders.messaging.publisher import Publisher
from orders.settings import CacheSettings, DatabaseSettings, MessagingSettings
from orders.upstream.http import Upstream
from orders.upstream.policy import UpstreamPolicy
from orders.upstream.transport import HttpRequest


class Certificates(NamedTuple):
    """An authority that servers are of, and one that they are not of."""

    ours: Authority
    other: Authority

    def server(self, *, expired: bool = False) -> Pair:
        """Return a certificate for localhost, and not for its address."""
        if expired:
            return self.ours.server("expired", ("localhost",), days=-2)
        return self.ours.server("localhost-only", ("localhost",))


@pytest.fixture(scope="module")
def certificates(state: Path) -> Certificates:
    # The first is that of the shared RabbitMQ as well.
    return Certificates(Authority(state / "certificates"), Authority(state / "other-certificates"))


class TlsPooler:
    """PgBouncer in front of PostgreSQL, which takes only TLS: the embedded server has none."""

    def __init__(self, postgres: Postgres, database: Database, certificates: Certificates) -> None:
        self.postgres, self.database, self.certificates = postgres, database, certificates
        client = certificates.ours.client("orders")
        self.tls = Tls(certificates.ours.bundle, certificates.server(), client)
        self.port = free_port()

    def program(self, pair: Pair | None = None) -> Program:
        tls = self.tls if pair is None else self.tls._replace(server=pair)
        name = f"pgbouncer-{self.port}"
        cluster = self.postgres.cluster
        return Program(pgbouncer.component(cluster, self.port, name=name, tls=tls))

    def problem(self, **changes: object) -> str | None:
        """Connect as our processes do, and return why it failed; None leaves a parameter out."""
        parameters = {
            "sslmode": "verify-full",
            "sslrootcert": self.tls.authority,
            "sslcert": self.tls.client.certificate,
            "sslkey": self.tls.client.key,
            **changes,
        }
        query = urlencode({name: value for name, value in parameters.items() if value is not None})
        login = f"orders:{self.postgres.cluster.password}"
        url = f"postgresql://{login}@localhost:{self.port}/{self.database.name}?{query}"
        settings = DatabaseSettings(url=url, session_url=self.database.url)
        server = connection.primary(settings)
        with contextlib.suppress(Transient):
            connection.connect(server, settings, "test").close()
        return server.problem


@pytest.fixture(scope="module")
def pooler(
    postgres: Postgres, database: Database, certificates: Certificates
) -> Iterator[TlsPooler]:
    pooler = TlsPooler(postgres, database, certificates)
    program = pooler.program()
    program.start()
    yield pooler
    program.kill()


def test_postgresql_is_verified(pooler: TlsPooler, certificates: Certificates) -> None:
    assert pooler.problem() is None
    untrusted = pooler.problem(sslrootcert=certificates.other.bundle)
    assert untrusted == (
        "the server's certificate is from an authority that is not trusted: add the authority to"
        " PGSSLROOTCERT (or sslrootcert in the URL), or renew it if it has expired"
    )
    another = pooler.problem(host="db.example", hostaddr="127.0.0.1")
    assert another == verified.OTHER_HOST
    absent = pooler.problem(sslrootcert="/nowhere/authority.pem")
    assert absent is not None
    assert absent.startswith("sslmode=verify-full needs an authority: set PGSSLROOTCERT")


def test_postgresql_demands_tls_and_a_certificate_of_the_client(pooler: TlsPooler) -> None:
    assert pooler.problem(sslmode="disable") == verified.TLS_DEMANDED
    assert pooler.problem(sslcert="/nowhere", sslkey="/nowhere") == verified.CLIENT_DEMANDED


def test_postgresql_is_shown_the_certificate_of_the_moment(
    pooler: TlsPooler, certificates: Certificates, tmp_path: Path
) -> None:
    files = Pair(tmp_path / "tls.crt", tmp_path / "tls.key")
    own_certificate, other = certificates.ours, certificates.other
    pairs = (
        own_certificate.client("first"),
        other.client("stranger"),
        own_certificate.client("second"),
    )
    problems = []
    for pair in pairs:
        place(pair, files)
        problems.append(pooler.problem(sslcert=files.certificate, sslkey=files.key))
    assert [problem is None for problem in problems] == [True, False, True]


def place(pair: Pair, files: Pair) -> None:
    """Replace the files of a pair."""
    for source, target in zip(pair, files, strict=True):
        shutil.copy(source, target)


def test_postgresql_with_an_expired_certificate_is_refused(
    postgres: Postgres, database: Database, certificates: Certificates
) -> None:
    pooler = TlsPooler(postgres, database, certificates)
    program = pooler.program(certificates.server(expired=True))
    program.start()
    try:
        assert "or renew it if it has expired" in str(pooler.problem())
    finally:
        program.kill()


def test_a_server_without_tls_is_named(postgres: Postgres, database: Database) -> None:
    settings = DatabaseSettings(url=f"{database.url}?sslmode=verify-full")
    server = connection.sessions(settings)
    with pytest.raises(Transient):
        connection.connect(server, settings, "test")
    assert "set PGSSLROOTCERT" in str(server.problem) or "has no TLS" in str(server.problem)


def amqp(
    rabbitmq: RabbitMQ,
    authority: Path,
    *,
    host: str = "localhost",
    certificate: bool = True,
    pair: Pair | None = None,
) -> str:
    tls = rabbitmq.broker.tls
    assert tls is not None
    options: dict[str, str] = {"ca_certs": str(authority)}
    if certificate:
        chosen = pair or tls.client
        options |= {"certfile": str(chosen.certificate), "keyfile": str(chosen.key)}
    login = f"{server.USER}:{rabbitmq.broker.password}"
    address = f"{host}:{rabbitmq.broker.tls_port}/%2F"
    return f"amqps://{login}@{address}?ssl_options={quote(str(options))}"


def problem_of(url: str) -> str | None:
    """Connect as our processes do; return why it does not serve."""
    publisher = Publisher(MessagingSettings(url=url), "test")
    publisher.start()
    try:
        eventually(lambda: publisher.problem != "not connected to RabbitMQ yet")
        return publisher.problem
    finally:
        publisher.close()


def test_rabbitmq_is_verified(rabbitmq: RabbitMQ, certificates: Certificates) -> None:
    own_certificate, other = certificates.ours.bundle, certificates.other.bundle
    assert problem_of(amqp(rabbitmq, own_certificate)) is None
    assert verified.UNKNOWN_AUTHORITY in str(problem_of(amqp(rabbitmq, other)))
    assert verified.OTHER_HOST in str(problem_of(amqp(rabbitmq, own_certificate, host="127.0.0.1")))


def test_rabbitmq_demands_a_certificate_of_the_client(
    rabbitmq: RabbitMQ, certificates: Certificates
) -> None:
    url = amqp(rabbitmq, certificates.ours.bundle, certificate=False)
    assert problem_of(url) is not None


def connections(rabbitmq: RabbitMQ, link: str) -> list[tuple[str, str]]:
    """Return the ports that a link connected from, and the names in its certificates."""
    listed = requests.get(f"{rabbitmq.management_url}/api/connections", timeout=60).json()
    return [
        (each["name"], each["peer_cert_subject"])
        for each in listed
        if each.get("client_properties", {}).get("connection_name") == link
    ]


def end_connections(rabbitmq: RabbitMQ, link: str) -> None:
    for name, _ in connections(rabbitmq, link):
        requests.delete(f"{rabbitmq.management_url}/api/connections/{quote(name)}", timeout=60)


def test_rabbitmq_is_shown_the_certificate_of_the_moment_and_no_half_of_a_pair(
    rabbitmq: RabbitMQ, certificates: Certificates, tmp_path: Path
) -> None:
    """A connection that is open stays; the next one has what the files hold by then."""
    files, link = Pair(tmp_path / "tls.crt", tmp_path / "tls.key"), f"rotated-{tmp_path.name}"
    first, second = (certificates.ours.client(name) for name in ("first", "second"))
    place(first, files)
    url = amqp(rabbitmq, certificates.ours.bundle, pair=files)
    publisher = Publisher(MessagingSettings(url=url), link)
    publisher.start()
    try:
        eventually(lambda: subjects(rabbitmq, link) == ["CN=first"])
        [(connection_before, _)] = connections(rabbitmq, link)
        shutil.copy(second.certificate, files.certificate)
        end_connections(rabbitmq, link)
        eventually(
            lambda: [port for port, _ in connections(rabbitmq, link) if port != connection_before]
        )
        assert set(subjects(rabbitmq, link)) == {"CN=first"}
        shutil.copy(second.key, files.key)
        end_connections(rabbitmq, link)
        eventually(lambda: subjects(rabbitmq, link) == ["CN=second"])
    finally:
        publisher.close()


def subjects(rabbitmq: RabbitMQ, link: str) -> list[str]:
    return [subject for _, subject in connections(rabbitmq, link)]


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def https(pair: Pair) -> Iterator[int]:
    """Serve with a certificate; give the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*pair)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answer) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def call(url: str) -> bytes:
    with closing(Upstream("private", url, UpstreamPolicy(retries=0))) as upstream:
        return upstream.call(HttpRequest("GET", "/", "/"), lambda reply: reply.body)


def listed(url: str) -> bytes:
    with closing(Management(url, "/")) as management:
        return repr(management.list("policies")).encode()


Ask = Callable[[str], bytes]


@pytest.mark.parametrize("ask", [call, listed], ids=["upstreams", "management API"])
def test_https_is_verified(
    ask: Ask, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.ours.bundle))
    with https(certificates.server()) as port:
        assert ask(f"https://localhost:{port}") == b"[]"
        assert verified.OTHER_HOST in refusal(ask, f"https://127.0.0.1:{port}")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.other.bundle))
        words = refusal(ask, f"https://localhost:{port}")
        assert f"{verified.UNKNOWN_AUTHORITY}REQUESTS_CA_BUNDLE" in words
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.ours.bundle))
    with https(certificates.server(expired=True)) as port:
        assert verified.EXPIRED in refusal(ask, f"https://localhost:{port}")


def refusal(ask: Ask, url: str) -> str:
    with pytest.raises((Transient, Unavailable)) as error:
        ask(url)
    return str(error.value)


@contextlib.contextmanager
def encrypted(url: str, pair: Pair) -> Iterator[int]:
    """Stand in front of a Redis with TLS, which the embedded server has none of; give the port."""
    front = Front(int(url.rpartition(":")[2].partition("/")[0]), pair)
    try:
        yield front.port
    finally:
        front.stop()


def test_redis_is_verified(
    redis_url: str, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ours.bundle))
    with encrypted(redis_url, certificates.server(expired=True)) as port:
        assert verified.EXPIRED in str(pinged(f"rediss://localhost:{port}"))
    with encrypted(redis_url, certificates.server()) as port:
        assert pinged(f"rediss://localhost:{port}") is None
        assert verified.OTHER_HOST in str(pinged(f"rediss://127.0.0.1:{port}"))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.other.bundle))
        untrusted = str(pinged(f"rediss://localhost:{port}"))
        assert f"{verified.UNKNOWN_AUTHORITY}SSL_CERT_FILE" in untrusted


def test_connections_to_redis_share_a_context_until_the_authorities_change(
    redis_url: str, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = tmp_path / "trusted.pem"
    shutil.copy(certificates.ours.bundle, trusted)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with encrypted(redis_url, certificates.server()) as port:
        login = Login(f"rediss://localhost:{port}")
        first, second = context_of(login), context_of(login)
        assert first is second
        Path(f"{trusted}.new").write_bytes(certificates.other.bundle.read_bytes())
        Path(f"{trusted}.new").replace(trusted)
        with pytest.raises(RedisError, match="CERTIFICATE_VERIFY_FAILED"):
            context_of(login)
        Path(f"{trusted}.new").write_bytes(certificates.ours.bundle.read_bytes())
        Path(f"{trusted}.new").replace(trusted)
        assert context_of(login) is not first
        another = Login(f"rediss://localhost:{port}?ssl_ca_certs={certificates.ours.bundle}")
        assert context_of(another) is not context_of(login)


def context_of(login: Login) -> ssl.SSLContext:
    """Connect as the cache does, and return the context of the connection."""
    connection = login.connect(timeout_s=5, protocol=2)
    with closing(connection):
        tls = connection._socket
        assert isinstance(tls, ssl.SSLSocket)
        return tls.context


def pinged(url: str) -> str | None:
    redis = Redis(CacheSettings(url=url, timeout_s=5))
    try:
        redis.warm(within_s=5)
        redis.call("PING")
    except RedisDown as error:
        return str(error)
    finally:
        redis.close()
    return None
