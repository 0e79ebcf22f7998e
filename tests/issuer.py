"""A small OpenID Connect issuer on loopback: its two documents over HTTP, keys that can be exchanged, tokens of any
shape. It can be told to break."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from tests.services import LOOPBACK

AUDIENCE = "headgate"
_RSA = rsa.generate_private_key(65537, 2048)  # takes a while: one for all tests


class Issuer:
    """`keys` are by `kid` the private key and its algorithm; `asked` are the paths that somebody read; while
    `answering` is not set, it hangs."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys: dict[str, tuple[PrivateKeyTypes, str]] = {"first": (_RSA, "RS256")}
        self.asked: list[str] = []
        self.answers: dict[str, bytes] = {}
        self.extra_keys: list[dict[str, Any]] = []
        self.away = False
        self.answering = threading.Event()
        self.answering.set()

    def document(self, path: str) -> bytes:
        """What it answers at a path; a test may have put something else there."""
        discovery = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        found = discovery if path == "/.well-known/openid-configuration" else {"keys": self._published()}
        return self.answers.get(path, json.dumps(found).encode())

    def _published(self) -> list[dict[str, Any]]:
        return [public(key, algorithm, kid) for kid, (key, algorithm) in self.keys.items()] + self.extra_keys

    def rotate(self, kid: str) -> None:
        """From now on only a new key counts."""
        self.keys = {kid: (ec.generate_private_key(ec.SECP256R1()), "ES256")}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Claims that hold; a change to None leaves one out."""
        now = int(time.time())
        usual = {"iss": self.url, "aud": AUDIENCE, "sub": "subject-1", "iat": now, "exp": now + 300}
        person = {"preferred_username": "ada", "groups": ["ml", "ml-reviewers"]}
        return {name: value for name, value in {**usual, **person, **changes}.items() if value is not None}

    def token(self, headers: dict[str, Any] | None = None, **changes: Any) -> str:
        """A token signed with the newest key."""
        kid, (key, algorithm) = list(self.keys.items())[-1]
        return jwt.encode(self.claims(**changes), key, algorithm, {"kid": kid, **(headers or {})})  # type: ignore[arg-type]  # all private keys that sign


def public(key: PrivateKeyTypes, algorithm: str, kid: str) -> dict[str, Any]:
    """A key as issuers publish it."""
    found: dict[str, Any] = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return {**found, "kid": kid, "alg": algorithm, "use": "sig"}


@contextlib.contextmanager
def issuing() -> Iterator[Issuer]:
    """An issuer for the length of a block."""
    server = ThreadingHTTPServer((LOOPBACK, 0), _Handler)
    server.issuer = Issuer(f"http://{LOOPBACK}:{server.server_port}")  # type: ignore[attr-defined]  # for its handlers
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.issuer  # type: ignore[attr-defined]  # as above
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        issuer: Issuer = self.server.issuer  # type: ignore[attr-defined]  # put there above
        issuer.asked.append(self.path)
        issuer.answering.wait(60)
        body = b"" if issuer.away else issuer.document(self.path)
        self.send_response(503 if issuer.away else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Tests need no log."""
