"""A bundle of authorities is what the variables of pods make OpenSSL trust, and nothing else is."""

import datetime as dt
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from orderservice_operator.external_metrics import certificates
from orderservice_operator.resource.pods import CA_FOLDER

HANDSHAKE = """
import json, socket, ssl, sys
def trusts(port):
    with socket.create_connection(("localhost", port)) as plain:
        try:
            with ssl.create_default_context().wrap_socket(plain, server_hostname="localhost"):
                return True
        except ssl.SSLCertVerificationError:
            return False
print(json.dumps([trusts(int(port)) for port in sys.argv[1:]]))
"""


@contextmanager
def _server(folder: Path) -> Iterator[int]:
    """Serve TLS with a certificate of an authority that is then in the folder's `ca.crt`."""
    folder.mkdir()
    pair = certificates.issue(("localhost",), dt.datetime.now(dt.UTC))
    chain = folder.with_suffix(".chain")
    chain.write_text(pair.certificate + pair.key)
    (folder / "ca.crt").write_text(pair.authorities)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain)
    listener = socket.create_server(("localhost", 0))

    def serve() -> None:
        with suppress(OSError):  # closed: the end
            while True:
                connection, _ = listener.accept()
                with suppress(OSError), context.wrap_socket(connection, server_side=True) as tls:
                    tls.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _trusted(ports: tuple[int, ...], variables: dict[str, str]) -> list[bool]:
    """Return which servers a process with these variables trusts."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("SSL_")}
    command = [sys.executable, "-c", HANDSHAKE, *map(str, ports)]
    answer = subprocess.run(command, env=others | variables, check=True, capture_output=True)
    trusted: list[bool] = json.loads(answer.stdout)
    return trusted


def _hashed(folder: Path) -> Path:
    """Name a certificate as OpenSSL looks for it in a directory."""
    command = ["openssl", "x509", "-noout", "-hash", "-in", str(folder / "ca.crt")]
    digest = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    shutil.copy(folder / "ca.crt", folder / f"{digest}.0")
    return folder


def test_a_bundle_is_trusted_and_the_directory_of_the_image_is_not(
    children: Any, tmp_path: Path
) -> None:
    manifests = children("minimal", caBundleSecretRef={"name": "authorities"})
    settings = next(body["data"] for (kind, _), body in manifests.items() if kind == "ConfigMap")
    bundle, image = tmp_path / "bundle", tmp_path / "image"
    mounted = {
        name: value.replace(CA_FOLDER, str(bundle))
        for name, value in settings.items()
        if value.startswith(CA_FOLDER)
    }
    with _server(bundle) as private, _server(image) as public:
        ports = (private, public)
        # In place of the directory that is compiled in, which a test must not write to.
        default = {"SSL_CERT_DIR": str(_hashed(image))}
        assert _trusted(ports, default) == [False, True]
        assert _trusted(ports, default | mounted) == [True, False]
