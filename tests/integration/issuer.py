"""An issuer of tokens that publishes its keys."""

import http.server
import threading
import time
from typing import Any

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, rsa

AUDIENCE, ISSUER = "orders", "https://issuer.example"


class Issuer:
    """An issuer with a JWKS endpoint."""

    def __init__(self) -> None:
        self.rsa, self.ec = (
            rsa.generate_private_key(65537, 2048),
            ec.generate_private_key(ec.SECP256R1()),
        )
        self.jwks = [
            self._public(self.rsa, "r1"),
            self._public(self.ec, "e1"),
            {"kty": "oct", "k": "YQ"},
        ]
        self.fetches = 0
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetches += 1
                body = msgspec.json.encode({"keys": issuer.jwks})
                self.send_response(200 if self.path == "/keys?v=1" else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys?v=1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _public(self, key: Any, key_id: str) -> dict[str, Any]:
        algorithm = jwt.algorithms.RSAAlgorithm if key_id[0] == "r" else jwt.algorithms.ECAlgorithm
        public: dict[str, Any] = algorithm.to_jwk(key.public_key(), as_dict=True)
        return {**public, "kid": key_id, "use": "sig"}

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def token(self, subject: object, scope: str, key: str = "r1", **claims: Any) -> dict[str, str]:
        signer, algorithm = (self.rsa, "RS256") if key[0] == "r" else (self.ec, "ES256")
        content = {
            "sub": str(subject), "scope": scope, "exp": int(time.time()) + 600, "aud": AUDIENCE,
            "iss": ISSUER, **claims,
        }  # fmt: skip
        signed = jwt.encode(content, signer, algorithm, {"kid": key})
        return {"Authorization": f"Bearer {signed}"}
