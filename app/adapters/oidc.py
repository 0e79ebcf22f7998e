"""Bearer tokens of an OpenID Connect issuer: signed with a key that the issuer publishes, for us, and not expired.

Nothing that a token says of itself chooses the key's address, the key's kind or the algorithm: keys come from the
issuer's own documents alone, and each key has one algorithm.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any

import jwt
from jwt import PyJWK, PyJWKClient

from app.domain.addresses import is_guarded
from app.domain.errors import Transient, Unauthorized
from app.ports import Identity

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
LARGEST = 16 * 1024
LEEWAY_S = 30
TIMEOUT_S = 3.0
_COLUMN = 255


@dataclass(frozen=True)
class Trust:
    """Whom to trust for what: tokens of `issuer` for `audience`, whose claim `roles_claim` has one of the values in
    `roles` (the first one there that a token has, counts); with one of `machines` it is a machine. `name_claim` has a
    name for people. Claims may be paths: `realm_access.roles`."""

    issuer: str
    audience: str
    roles: Mapping[str, str]
    machines: Collection[str] = ()
    roles_claim: str = "groups"
    name_claim: str = "preferred_username"


class OidcIssuer:
    """One issuer. Its keys are kept for `lifespan_s`, and read again at most every `pause_s` for a key that is new."""

    def __init__(self, trust: Trust, lifespan_s: float = 300, pause_s: float = 10) -> None:
        self._trust = trust
        self._keys = _Keys(trust.issuer, lifespan_s, pause_s)

    def verify(self, token: str) -> Identity:
        """Whom the token is of. Raises Unauthorized where it does not hold, Transient where the issuer is away."""
        try:
            claims = self._claims(token)
            values = _texts(_claim(claims, self._trust.roles_claim))
            return Identity(
                issuer=self._trust.issuer,
                subject=_subject(claims),
                name=next(iter(_texts(_claim(claims, self._trust.name_claim)) + _texts(claims.get("email"))), ""),
                role=next((role for value, role in self._trust.roles.items() if value in values), ""),
                machine=any(value in values for value in self._trust.machines),
                authenticated_at=_authenticated_at(claims),
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            # The errors' own words may quote the token, and say nothing to whoever gets the answer.
            raise Unauthorized(f"The bearer token does not hold: {_why(error)}.", "Sign in again.") from None

    def self_test(self) -> str:
        """Read the issuer's documents anew and say what is there. Raises Transient where they cannot be used."""
        keys = [key for key in self._keys.get_jwk_set(refresh=True).keys if key.algorithm_name in ALGORITHMS]
        if not keys:
            raise Transient(f"{self._trust.issuer} publishes no key that may sign tokens.", "Mend its configuration.")
        return f"{self._trust.issuer}, {len(keys)} keys ({', '.join(sorted({key.algorithm_name for key in keys}))})"

    def _claims(self, token: str) -> dict[str, Any]:
        if len(token) > LARGEST:
            raise ValueError
        header = jwt.get_unverified_header(token)
        if header.get("alg") not in ALGORITHMS:
            raise jwt.InvalidAlgorithmError
        if not isinstance(header.get("kid"), str):
            raise jwt.PyJWKClientError
        key = self._keys.find(header["kid"])
        if key.algorithm_name not in ALGORITHMS:  # an issuer that publishes a secret must not make a signature of it
            raise jwt.InvalidAlgorithmError
        return jwt.decode(
            token,
            key,
            algorithms=ALGORITHMS,
            audience=self._trust.audience,
            issuer=self._trust.issuer,
            leeway=LEEWAY_S,
            options={"require": ["exp", "iat", "iss", "aud", "sub"], "enforce_minimum_key_length": True},
        )


class _Keys(PyJWKClient):
    """The issuer's keys, at the address that its discovery document names at that time."""

    def __init__(self, issuer: str, lifespan_s: float, pause_s: float) -> None:
        self._issuer, self._pause_s, self._rest_until = issuer, pause_s, 0.0
        where = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        # The library's client reads JSON from a fixed address without following redirects, which is what is wanted.
        self._discovery = PyJWKClient(where, cache_jwk_set=False, timeout=TIMEOUT_S)
        super().__init__(where, lifespan=lifespan_s, timeout=TIMEOUT_S, cooldown_duration=pause_s)

    def find(self, kid: str) -> PyJWK:
        """The key of that name. Raises PyJWKClientError where the issuer has none."""
        # Whoever shows a known key does not wait while an unknown one makes us ask the issuer.
        known = self.jwk_set_cache.get() if self.jwk_set_cache is not None else None
        found = (
            self.match_kid([key for key in known.keys if key.public_key_use in ("sig", None)], kid) if known else None
        )
        return found or self.get_signing_key(kid)

    def fetch_data(self) -> Any:
        """The key set. Raises Transient where the issuer is away; then it is left in peace for a while."""
        if time.monotonic() < self._rest_until:
            raise self._away("it did not answer a moment ago")
        try:
            found = self._discovery.fetch_data()
            where = found.get("jwks_uri")
            if found.get("issuer") != self._issuer or not isinstance(where, str) or not is_guarded(where):
                raise ValueError("its discovery document is another's, or its keys lie in the open")
            self.uri = where
            return super().fetch_data()
        except (jwt.PyJWTError, OSError, HTTPException, ValueError) as error:
            self._rest_until = time.monotonic() + self._pause_s
            raise self._away(str(error) if type(error) is ValueError else type(error).__name__) from error

    def _away(self, why: str) -> Transient:
        remedy = "Try again; `headgate doctor` looks at HEADGATE_OIDC_ISSUER."
        return Transient(f"The issuer {self._issuer} cannot be asked for its keys: {why}.", remedy)


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or by the way to it through claims that hold others."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _texts(value: Any) -> list[str]:
    """A claim's values as words; what is no word, number or list of them, says nothing."""
    values = value if isinstance(value, list) else [value]
    return [str(one) for one in values if isinstance(one, str | int) and not isinstance(one, bool) and one != ""]


def _subject(claims: Mapping[str, Any]) -> str:
    subject: str = claims["sub"]
    if not 0 < len(subject) <= _COLUMN:
        raise ValueError
    return subject


def _authenticated_at(claims: Mapping[str, Any]) -> datetime:
    """When the person signed in; where the issuer does not say so, when it made the token."""
    made = int(claims["iat"])
    signed_in = int(claims["auth_time"]) if claims.get("auth_time") is not None else made
    if signed_in > made + LEEWAY_S:
        raise ValueError
    return datetime.fromtimestamp(signed_in, UTC)


def _why(error: Exception) -> str:
    for kind, words in _WORDS.items():
        if isinstance(error, kind):
            return words
    return "it is malformed"


_WORDS: Mapping[type[Exception], str] = {
    jwt.ExpiredSignatureError: "it has expired",
    jwt.ImmatureSignatureError: "it does not count yet",
    jwt.InvalidAudienceError: "it is for another service",
    jwt.InvalidIssuerError: "it is another issuer's",
    jwt.MissingRequiredClaimError: "it lacks one of exp, iat, iss, aud and sub",
    jwt.InvalidAlgorithmError: "its algorithm is not allowed",
    jwt.PyJWKClientError: "the issuer has no such key",
    jwt.InvalidSignatureError: "its signature is wrong",
    jwt.InvalidKeyError: "its key is too weak",
}
