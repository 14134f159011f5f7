"""Our client certificates, for servers that require them: presented, replaced, refused."""

import contextlib
import contextvars
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from devstack import unprivileged
from devstack.certificates import Authority, Pair
from devstack.component import Component, Stage
from devstack.ports import free_port
from devstack.program import Program
from devstack.servers import nginx
from integration.serving import eventually
from loadtest.repeating import Repeating
from orders import verified
from orders.errors import SettingError, Unavailable
from orders.settings import NotificationSettings, UpstreamSettings, load
from orders.upstream.credential import (
    ANONYMOUS,
    Credential,
    credential_of,
    credential_of_webhooks,
)
from orders.upstream.http import Upstream
from orders.upstream.parallel import ParallelCalls
from orders.upstream.policy import UpstreamPolicy
from orders.upstream.transport import Call, HttpRequest

# Patient: a busy machine is no reason to call a certificate refused.
POLICY = UpstreamPolicy(retries=0, breaker_failures=1000, deadline_s=60, try_timeout_s=60)
ASK = HttpRequest("GET", "/", "/")


class Certificates(NamedTuple):
    """An authority that the server trusts, and one that it does not."""

    ours: Authority
    other: Authority


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    return Certificates(Authority(folder / "ours"), Authority(folder / "other"))


@pytest.fixture(autouse=True)
def trusted(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.ours.bundle))


class _Answer(BaseHTTPRequestHandler):
    """Answers with the name in the client's certificate."""

    protocol_version = "HTTP/1.1"
    server: "Demanding"

    def setup(self) -> None:
        try:
            self.request.do_handshake()
        except OSError:
            # Closed with bytes unread, the connection would be reset, and the alert be lost.
            with contextlib.suppress(OSError):
                self.request.shutdown(socket.SHUT_WR)
                while socket.socket.recv(self.request, 65_536):
                    pass
            raise
        super().setup()

    def do_GET(self) -> None:
        subject = dict(part[0] for part in self.connection.getpeercert()["subject"])
        body = subject["commonName"].encode()
        self.server.names.append(subject["commonName"])
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


class Demanding(ThreadingHTTPServer):
    """A server that demands a client's certificate; each connection carries one request."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, certificates: Certificates, version: ssl.TLSVersion) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.names: list[str] = []
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificates.ours.server("demanding", ("localhost",)))
        context.load_verify_locations(certificates.ours.bundle)
        context.verify_mode = ssl.CERT_REQUIRED
        context.maximum_version = version
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )
        self.url = f"https://localhost:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """Print nothing: the client reports the error."""


@contextlib.contextmanager
def demanding(certificates: Certificates, version: ssl.TLSVersion) -> Iterator[Demanding]:
    with Demanding(certificates, version) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module", params=["TLSv1_2", "TLSv1_3"])
def server(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[Demanding]:
    with demanding(certificates, ssl.TLSVersion[request.param]) as running:
        yield running


def of_payment(url: str, pair: Pair) -> Credential:
    """Read the settings as a worker does."""
    environ = {
        "ORDERS_INVENTORY_URL": "http://localhost",
        "ORDERS_PAYMENT_URL": url,
        "ORDERS_PAYMENT_CERTIFICATE_FILE": str(pair.certificate),
        "ORDERS_PAYMENT_KEY_FILE": str(pair.key),
    }
    return credential_of(load(UpstreamSettings, environ), "payment")


def call_alone(url: str, credential: Credential) -> bytes:
    with closing(Upstream("payment", url, POLICY, credential=credential)) as upstream:
        return upstream.call(ASK, lambda reply: reply.body)


def call_in_sets(url: str, credential: Credential) -> bytes:
    with (
        closing(Upstream("payment", url, POLICY, credential=credential)) as upstream,
        closing(ParallelCalls[int](1)) as calls,
    ):
        call = Call(ASK, lambda reply: reply.body)
        calls.begin(1, upstream, call, contextvars.copy_context().run)
        while not (answers := calls.wait(30)):
            pass
        if answers[0].error is not None:
            raise answers[0].error
        return bytes(answers[0].result)


@pytest.mark.parametrize("ask", [call_alone, call_in_sets])
def test_a_server_that_demands_a_certificate_gets_ours(
    ask: object, server: Demanding, certificates: Certificates
) -> None:
    pair = certificates.ours.client("orders")
    assert callable(ask)
    assert ask(server.url, of_payment(server.url, pair)) == b"orders"


@pytest.mark.parametrize("ask", [call_alone, call_in_sets])
def test_a_refused_certificate_says_what_to_do(
    ask: object, server: Demanding, certificates: Certificates
) -> None:
    assert callable(ask)
    with pytest.raises(Unavailable) as absent:
        ask(server.url, ANONYMOUS)
    assert words(absent.value, verified.CERTIFICATE_ABSENT, verified.HANDSHAKE_REFUSED)
    with pytest.raises(Unavailable) as untrusted:
        ask(server.url, of_payment(server.url, certificates.other.client("stranger")))
    assert words(untrusted.value, verified.CERTIFICATE_UNTRUSTED)
    with pytest.raises(Unavailable) as expired:
        ask(server.url, of_payment(server.url, certificates.ours.client("expired", days=-2)))
    assert words(expired.value, verified.CERTIFICATE_EXPIRED)


def words(error: Exception, *expected: str) -> bool:
    """Check that an error has one of the texts: TLS 1.2 has none for a missing certificate."""
    assert any(text in str(error) for text in expected), str(error)
    return True


@pytest.fixture(scope="module")
def proxy(state: Path, certificates: Certificates) -> Iterator[str]:
    """Run nginx as a service mesh does: it demands a certificate, and answers 400 without one."""
    folder, port = unprivileged.folder(state, "demanding-nginx"), free_port()
    pair = certificates.ours.server("demanding", ("localhost",))
    for file in (*pair, certificates.ours.bundle):
        unprivileged.own(Path(shutil.copy(file, folder)))
    (folder / "nginx.conf").write_text(f"""
        daemon off; pid nginx.pid; events {{}}
        http {{
            access_log off; client_body_temp_path body; proxy_temp_path proxy;
            fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
            server {{
                listen 127.0.0.1:{port} ssl;
                ssl_certificate {pair.certificate.name}; ssl_certificate_key {pair.key.name};
                ssl_client_certificate {certificates.ours.bundle.name}; ssl_verify_client on;
                location / {{ return 200 $ssl_client_s_dn; }}
            }}
        }}
    """)
    argv = (str(nginx.binary(state)), "-p", str(folder), "-c", "nginx.conf", "-e", "stderr")
    program = Program(
        Component(
            name="demanding-nginx",
            stage=Stage.GATEWAY,
            argv=argv,
            as_user=unprivileged.prefix(),
            environment={},
            folder=folder,
            log=folder / "log",
            address=f"127.0.0.1:{port}",
            ready=lambda: nginx.answers(f"127.0.0.1:{port}"),
        )
    )
    program.start()
    yield f"https://localhost:{port}"
    program.kill()


def test_the_page_of_an_nginx_that_refuses_us_is_understood(
    proxy: str, certificates: Certificates
) -> None:
    assert call_alone(proxy, of_payment(proxy, certificates.ours.client("orders"))) == b"CN=orders"
    with pytest.raises(Unavailable, match="status 400") as absent:
        call_alone(proxy, ANONYMOUS)
    assert words(absent.value, verified.CERTIFICATE_ABSENT)
    with pytest.raises(Unavailable, match="status 400") as untrusted:
        call_alone(proxy, of_payment(proxy, certificates.other.client("stranger")))
    assert words(untrusted.value, verified.CERTIFICATE_REFUSED)


def replace(files: Pair, pair: Pair) -> None:
    """Put a pair into the place of another one: each file in one step."""
    for old, new in zip(files, pair, strict=True):
        draft = old.with_suffix(".part")
        shutil.copy(new, draft)
        draft.rename(old)


@pytest.fixture
def files(certificates: Certificates, tmp_path: Path) -> Pair:
    """Return where a certificate is that will be replaced."""
    pair = Pair(tmp_path / "tls.crt", tmp_path / "tls.key")
    replace(pair, certificates.ours.client("first"))
    return pair


def test_a_certificate_is_replaced_under_load_without_a_failed_call(
    server: Demanding, certificates: Certificates, files: Pair
) -> None:
    server.names.clear()

    def in_use(name: str) -> bool:
        return server.names.count(name) >= 8

    credential = of_payment(server.url, files)
    with closing(Upstream("payment", server.url, POLICY, credential=credential)) as upstream:
        ask = partial(upstream.call, ASK, lambda reply: reply.body)
        with Repeating(ask, ask, ask, ask):
            for name in ("first", "second", "third"):
                replace(files, certificates.ours.client(name))
                eventually(partial(in_use, name))


def test_half_a_pair_is_not_taken_over(
    server: Demanding, certificates: Certificates, files: Pair
) -> None:
    credential = of_payment(server.url, files)
    second = certificates.ours.client("second")
    shutil.copy(second.certificate, files.certificate)
    assert call_alone(server.url, credential) == b"first"
    files.key.unlink()
    assert call_alone(server.url, credential) == b"first"
    shutil.copy(second.key, files.key)
    assert call_alone(server.url, credential) == b"second"


def test_a_pair_that_cannot_be_used_is_refused_at_the_start(
    certificates: Certificates, files: Pair
) -> None:
    shutil.copy(certificates.ours.client("second").key, files.key)
    with pytest.raises(SettingError, match="ORDERS_PAYMENT_CERTIFICATE_FILE is wrong: the files"):
        of_payment("https://payment", files)
    files.key.unlink()
    with pytest.raises(SettingError, match="cannot be read"):
        of_payment("https://payment", files)
    with pytest.raises(SettingError, match="ORDERS_PAYMENT_URL is not https"):
        of_payment("http://payment", files)


def test_a_certificate_without_its_key_is_refused_at_the_start() -> None:
    environ = {"ORDERS_INVENTORY_URL": "https://stock", "ORDERS_INVENTORY_KEY_FILE": "/key"}
    with pytest.raises(SettingError, match="ORDERS_INVENTORY_CERTIFICATE_FILE is not: set both"):
        load(UpstreamSettings, environ)


def test_receivers_of_webhooks_get_a_certificate_too(
    server: Demanding, certificates: Certificates
) -> None:
    pair = certificates.ours.client("orders")
    environ = {
        "ORDERS_NOTIFICATION_URL": server.url,
        "ORDERS_NOTIFICATION_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "ORDERS_NOTIFICATION_CERTIFICATE_FILE": str(pair.certificate),
        "ORDERS_NOTIFICATION_KEY_FILE": str(pair.key),
    }
    credential = credential_of_webhooks(load(NotificationSettings, environ))
    assert call_alone(server.url, credential) == b"orders"
