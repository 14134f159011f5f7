"""Tokens of customers: signed with a key, or from an issuer that knows a client."""

import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from loadtest.locusts.identity import Issuer, IssuerFailed, Signing, headers, signing


@contextmanager
def issuer(*, status: int = 200, life_s: float = 300) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Grant `token-1`, `token-2`, …, and record the requests."""
    forms: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"])).decode()
            fields = {name: values[0] for name, values in parse_qs(raw).items()}
            forms.append(fields | {"login": self.headers["Authorization"]})
            granted = {"access_token": f"token-{len(forms)}", "expires_in": life_s}
            body = msgspec.json.encode(granted if status == 200 else {"error": "invalid_client"})
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/token", forms
    finally:
        server.shutdown()
        server.server_close()


def client(url: str) -> dict[str, str]:
    return {
        "LOADTEST_TOKEN_URL": url,
        "LOADTEST_TOKEN_CLIENT_ID": "loadtest",
        "LOADTEST_TOKEN_CLIENT_SECRET": "secret",
        "LOADTEST_TOKEN_AUDIENCE": "orders",
    }


def test_a_client_of_an_issuer_gets_one_token_for_all_customers() -> None:
    with issuer() as (url, forms):
        tokens = signing(client(url))
        tokens_sent = [headers(tokens, user, "baggage")["Authorization"] for user in ("1", "2")]
    assert tokens_sent == ["Bearer token-1"] * 2
    assert forms == [
        {
            "grant_type": "client_credentials",
            "scope": "orders:read orders:write orders:admin",
            "audience": "orders",
            "login": "Basic " + b64encode(b"loadtest:secret").decode(),
        }
    ]


def test_a_token_is_replaced_before_it_ends() -> None:
    with issuer(life_s=0) as (url, forms):
        tokens = Issuer(url, "loadtest", "secret")
        assert [tokens.token("1", ""), tokens.token("2", "")] == ["token-1", "token-2"]
    assert len(forms) == 2


def test_an_issuer_that_refuses_is_named() -> None:
    with issuer(status=401) as (url, _), pytest.raises(IssuerFailed, match="LOADTEST_TOKEN_URL"):
        Issuer(url, "loadtest", "wrong").token("1", "")


def test_a_private_key_signs_for_each_customer_and_names_itself() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    tokens = signing(
        {
            "LOADTEST_JWT_KEY": pem,
            "LOADTEST_JWT_ALGORITHM": "ES256",
            "LOADTEST_JWT_KEY_ID": "k1",
            "LOADTEST_JWT_AUDIENCE": "orders",
        }
    )
    assert isinstance(tokens, Signing)
    token = tokens.token("7", "orders:read")
    assert jwt.get_unverified_header(token)["kid"] == "k1"
    claims = jwt.decode(token, key.public_key(), ["ES256"], audience="orders")
    assert (claims["sub"], claims["scope"]) == ("7", "orders:read")


def test_without_either_nobody_says_who_they_are() -> None:
    assert headers(signing({}), "7", "baggage") == {"baggage": "baggage"}
