"""The gateway with its own certificate: its protocols, and a renewal under load."""

import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import requests
from cryptography import x509
from cryptography.x509.oid import NameOID

from devstack import unprivileged
from devstack.certificates import Authority, Pair
from devstack.ports import free_port
from gateway.capacity import capacity
from gateway.settings import SettingError, load
from integration.serving import eventually
from integration.test_gateway_process import SERVICES, WITHIN_S, Api
from loadtest.repeating import Repeating


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    server = Api()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


class Gateway(NamedTuple):
    """A gateway, the files of its certificate, and who signs others for it."""

    port: int
    admin_port: int
    files: Pair
    authority: Authority
    log: Path

    def replace(self, pair: Pair) -> None:
        """Put another pair there, each file in one step."""
        for old, new in zip(self.files, pair, strict=True):
            draft = old.with_suffix(".part")
            shutil.copy(new, draft)
            draft.rename(old)

    def connect(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        """Shake hands as a client that wants to know whom it talks to."""
        plain = socket.create_connection(("localhost", self.port), WITHIN_S)
        return context.wrap_socket(plain, server_hostname="localhost")

    def common_name(self) -> str:
        """Return the common name in the certificate that a new connection is shown."""
        with self.connect(self.trusting()) as connection:
            certificate = connection.getpeercert(binary_form=True) or b""
        subject = x509.load_der_x509_certificate(certificate).subject
        return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)

    def trusting(self) -> ssl.SSLContext:
        """Return a context that verifies by the authority."""
        return ssl.create_default_context(cafile=str(self.authority.bundle))


@pytest.fixture(scope="module")
def gateway(state: Path, api: Api) -> Iterator[Gateway]:
    folder = unprivileged.folder(state, "gateway-tls")
    authority = Authority(state / "gateway-certificates")
    gateway = Gateway(
        free_port(),
        free_port(),
        Pair(folder / "tls.crt", folder / "tls.key"),
        authority,
        folder / "log",
    )
    gateway.replace(authority.server("first"))
    environ = {
        "GATEWAY_PORT": str(gateway.port),
        "GATEWAY_ADMIN_PORT": str(gateway.admin_port),
        "GATEWAY_API_ADDRESS": f"127.0.0.1:{api.server_port}",
        "GATEWAY_TLS_CERTIFICATE_FILE": str(gateway.files.certificate),
        "GATEWAY_TLS_KEY_FILE": str(gateway.files.key),
        "PYTHONPATH": str(SERVICES),
        "TMPDIR": str(folder),
    }
    with gateway.log.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway"], env=os.environ | environ, stdout=log, stderr=log
        )
    try:
        eventually(gateway.common_name)
        yield gateway
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(WITHIN_S)


def test_it_speaks_tls_1_2_and_1_3_and_http_1_1(gateway: Gateway) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = gateway.trusting()
        context.maximum_version = version
        context.set_alpn_protocols(["h2", "http/1.1"])
        with gateway.connect(context) as connection:
            assert connection.version() == version.name.replace("_", ".")
            assert connection.selected_alpn_protocol() == "http/1.1"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_what_is_older_or_weaker_is_refused(gateway: Gateway) -> None:
    older = gateway.trusting()
    older.minimum_version = older.maximum_version = ssl.TLSVersion.TLSv1_1
    older.set_ciphers("ALL:@SECLEVEL=0")
    weaker = gateway.trusting()
    weaker.maximum_version = ssl.TLSVersion.TLSv1_2
    weaker.set_ciphers("ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA384")  # no authentication
    for context in (older, weaker):
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            gateway.connect(context)


def test_a_request_is_passed_on_and_one_without_tls_is_told_why(gateway: Gateway) -> None:
    url = f"https://localhost:{gateway.port}/x"
    answer = requests.get(url, verify=str(gateway.authority.bundle), timeout=WITHIN_S)
    assert (answer.status_code, answer.text) == (200, "127.0.0.1")
    plain = requests.get(f"http://localhost:{gateway.port}/x", timeout=WITHIN_S)
    assert plain.status_code == 400
    assert plain.json()["detail"] == "This port speaks TLS only: use https."
    assert plain.headers["Content-Type"] == "application/problem+json"


def test_the_probes_ask_through_tls(gateway: Gateway) -> None:
    for path in ("/livez", "/readyz"):
        answer = requests.get(f"http://127.0.0.1:{gateway.admin_port}{path}", timeout=WITHIN_S)
        assert (answer.status_code, answer.text) == (200, "ok\n")


def test_a_renewal_under_load_fails_no_request_and_half_a_pair_is_not_taken(
    gateway: Gateway,
) -> None:
    """Clients keep their connections; after `Connection: close` they open another one."""
    connections = [
        http.client.HTTPSConnection(
            "localhost", gateway.port, timeout=WITHIN_S, context=gateway.trusting()
        )
        for _ in range(4)
    ]

    def ask(connection: http.client.HTTPSConnection) -> None:
        connection.request("GET", "/x")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200

    with ExitStack() as stack:
        for connection in connections:
            stack.callback(connection.close)
        clients = stack.enter_context(Repeating(*[partial(ask, each) for each in connections]))
        for name in ("second", "third"):
            gateway.replace(gateway.authority.server(name))
            eventually(partial(shows, gateway, name))
            clients.go_on(40)
        shutil.copy(gateway.authority.server("fourth").certificate, gateway.files.certificate)
        eventually(lambda: "previous certificate stays in use" in gateway.log.read_text())
        assert gateway.common_name() == "third"
        gateway.replace(gateway.authority.server("fourth"))
        eventually(partial(shows, gateway, "fourth"))


def shows(gateway: Gateway, name: str) -> bool:
    return gateway.common_name() == name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"GATEWAY_TLS_KEY_FILE": ""}, "GATEWAY_TLS_KEY_FILE is not set"),
        ({"GATEWAY_TLS_CERTIFICATE_FILE": ""}, "GATEWAY_TLS_CERTIFICATE_FILE is not set"),
        ({"GATEWAY_TLS_KEY_FILE": "/nowhere"}, "a file cannot be read"),
        ({"GATEWAY_TLS_KEY_FILE": "/a;b"}, "GATEWAY_TLS_KEY_FILE is wrong"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_refused_at_the_start(
    change: dict[str, str], words: str, tmp_path: Path
) -> None:
    pair = Authority(tmp_path).server()
    environ = {
        "GATEWAY_TLS_CERTIFICATE_FILE": str(pair.certificate),
        "GATEWAY_TLS_KEY_FILE": str(pair.key),
    }
    with pytest.raises(SettingError, match=words):
        load(environ | change)


def test_connections_with_tls_are_counted_as_larger() -> None:
    plain, tls = capacity(128), capacity(128, tls=True)
    assert tls.connections < plain.connections
    assert tls.requests < plain.requests
