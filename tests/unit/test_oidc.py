"""Bearer tokens of an issuer, against a real one on loopback: which hold, which do not, and who they are of."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from app.adapters.oidc import LARGEST, OidcIssuer, Trust
from app.domain.addresses import is_guarded
from app.domain.errors import Transient, Unauthorized
from tests.issuer import AUDIENCE, Issuer, issuing

ROLES = {"ml-admins": "admin", "ml-reviewers": "reviewer", "ml": "requester", "robots": "ci"}


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuing() as running:
        yield running


def trusting(issuer: Issuer, pause_s: float = 0, **changes: Any) -> OidcIssuer:
    trust: dict[str, Any] = {"roles": ROLES, "machines": ["robots"], **changes}
    return OidcIssuer(Trust(issuer.url, AUDIENCE, **trust), pause_s=pause_s)


def test_a_token_says_who_and_what_role(issuer: Issuer) -> None:
    signed_in = int(time.time()) - 3600
    found = trusting(issuer).verify(issuer.token(auth_time=signed_in))
    assert (found.issuer, found.subject, found.name) == (issuer.url, "subject-1", "ada")
    # the first mapping counts, in our order and not in that of the token
    assert (found.role, found.machine) == ("reviewer", False)
    assert found.authenticated_at.timestamp() == signed_in


@pytest.mark.parametrize(
    ("changes", "role", "machine", "name"),
    [
        ({"groups": ["ml", "ml-admins"]}, "admin", False, "ada"),
        ({"groups": "ml"}, "requester", False, "ada"),
        ({"groups": ["robots"]}, "ci", True, "ada"),
        ({"groups": ["ml", "robots"]}, "requester", True, "ada"),
        ({"groups": []}, "", False, "ada"),
        ({"groups": None}, "", False, "ada"),
        ({"groups": {"ml-admins": True}}, "", False, "ada"),
        ({"groups": [["ml-admins"]]}, "", False, "ada"),
        ({"preferred_username": None, "email": "ada@example.org"}, "reviewer", False, "ada@example.org"),
        ({"preferred_username": None}, "reviewer", False, ""),
    ],
)
def test_claims_become_a_role_and_a_name(
    issuer: Issuer, changes: dict[str, Any], role: str, machine: bool, name: str
) -> None:
    found = trusting(issuer).verify(issuer.token(**changes))
    assert (found.role, found.machine, found.name) == (role, machine, name)


def test_a_claim_may_lie_in_another_one(issuer: Issuer) -> None:
    nested: dict[str, dict[str, Any]] = {
        "realm_access.roles": {"realm_access": {"roles": ["ml-admins"]}},
        "https://example.org/roles": {"https://example.org/roles": ["ml-admins"]},
        "repository_id": {"repository_id": 74},
    }
    for path, claims in nested.items():
        trusted = trusting(issuer, roles_claim=path, roles={"ml-admins": "admin", "74": "admin"})
        assert trusted.verify(issuer.token(**claims)).role == "admin"


NOW = int(time.time())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"aud": "another"}, "another service"),
        ({"aud": ["another", "headgate-2"]}, "another service"),
        ({"aud": None}, "lacks"),
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"iss": None}, "lacks"),
        ({"sub": None}, "lacks"),
        ({"sub": ""}, "malformed"),
        ({"sub": "x" * 256}, "malformed"),
        ({"sub": 7}, "malformed"),
        ({"exp": None}, "lacks"),
        ({"iat": None}, "lacks"),
        ({"exp": NOW - 120}, "expired"),
        ({"exp": float("inf")}, "malformed"),
        ({"exp": "soon"}, "malformed"),
        ({"nbf": NOW + 3600}, "not count yet"),
        ({"iat": NOW + 3600}, "not count yet"),
        ({"iat": -(10**20)}, "malformed"),
        ({"auth_time": NOW + 3600}, "malformed"),
        ({"auth_time": [NOW]}, "malformed"),
        ({"auth_time": float("nan")}, "malformed"),
    ],
)
def test_what_does_not_hold_is_refused_and_never_echoed(issuer: Issuer, changes: dict[str, Any], words: str) -> None:
    token = issuer.token(**changes)
    with pytest.raises(Unauthorized, match=words) as refused:
        trusting(issuer).verify(token)
    assert not any(part in str(refused.value) for part in token.split("."))


def test_a_list_of_audiences_with_ours_and_a_clock_that_is_a_little_off_are_fine(issuer: Issuer) -> None:
    now = int(time.time())
    trusted = trusting(issuer)
    assert trusted.verify(issuer.token(aud=["another", AUDIENCE])).name == "ada"
    assert trusted.verify(issuer.token(exp=now - 10, iat=now + 10)).name == "ada"


def forged(header: dict[str, Any], claims: dict[str, Any], secret: bytes | None) -> str:
    """A token made without the library, which refuses to make such ones."""

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    text = f"{part(header)}.{part(claims)}"
    mac = b"" if secret is None else hmac.new(secret, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def test_no_algorithm_but_the_keys_own_counts(issuer: Issuer) -> None:
    key = issuer.keys["first"][0]
    public = key.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    published = json.dumps(json.loads(issuer.document("/keys"))["keys"][0]).encode()
    claims, trusted = issuer.claims(), trusting(issuer)
    for name in ("HS256", "HS512", "hs256", "none", "None", "NONE", "", None, 1, ["RS256"]):
        for secret in (pem, der, published, b"", None):
            with pytest.raises(Unauthorized, match=r"not allowed|malformed"):
                trusted.verify(forged({"alg": name, "kid": "first"}, claims, secret))
    assert issuer.asked == []  # nobody made us ask the issuer with such a token
    with pytest.raises(Unauthorized, match="not allowed"):
        trusted.verify(jwt.encode(claims, key, "PS256", {"kid": "first"}))  # type: ignore[arg-type]  # an RSA key
    with pytest.raises(Unauthorized, match="signature"):
        trusted.verify(forged({"alg": "RS256", "kid": "first"}, claims, pem))


def test_a_secret_among_the_published_keys_signs_nothing(issuer: Issuer) -> None:
    secret = b"everybody can read this, for it is published"
    text = base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
    issuer.extra_keys = [{"kty": "oct", "k": text, "kid": "second", "alg": "HS256"}]
    for algorithm in ("HS256", "RS256"):
        with pytest.raises(Unauthorized, match="not allowed"):
            trusting(issuer).verify(forged({"alg": algorithm, "kid": "second"}, issuer.claims(), secret))


def test_a_key_that_the_token_brings_along_is_not_looked_at(issuer: Issuer) -> None:
    evil = rsa.generate_private_key(65537, 2048)
    own = {**jwt.get_algorithm_by_name("RS256").to_jwk(evil.public_key(), as_dict=True), "kid": "first"}
    with issuing() as elsewhere:
        headers = {"kid": "first", "jku": f"{elsewhere.url}/keys", "x5u": f"{elsewhere.url}/keys", "jwk": own}
        with pytest.raises(Unauthorized, match="signature"):
            trusting(issuer).verify(jwt.encode(issuer.claims(), evil, "RS256", headers))
        assert elsewhere.asked == []


def test_a_short_key_is_too_weak(issuer: Issuer) -> None:
    weak = rsa.generate_private_key(65537, 1024)
    issuer.keys = {"weak": (weak, "RS256")}
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = issuer.token()
    with pytest.raises(Unauthorized, match="weak"):
        trusting(issuer).verify(token)


def test_keys_are_exchanged_while_we_run(issuer: Issuer) -> None:
    trusted, old = trusting(issuer), issuer.token()
    assert trusted.verify(old).subject == "subject-1"
    reads = len(issuer.asked)
    assert trusted.verify(old).subject == "subject-1"
    assert len(issuer.asked) == reads  # keys are kept
    issuer.rotate("second")
    assert trusted.verify(issuer.token()).subject == "subject-1"
    with pytest.raises(Unauthorized, match="no such key"):
        trusted.verify(old)
    issuer.keys = {"third": (ed25519.Ed25519PrivateKey.generate(), "EdDSA")}
    assert trusted.verify(issuer.token()).subject == "subject-1"


def test_unknown_keys_make_us_ask_only_now_and_then(issuer: Issuer) -> None:
    trusted = trusting(issuer, pause_s=3600)
    good = issuer.token()
    trusted.verify(good)
    reads = len(issuer.asked)
    for number in range(20):
        with pytest.raises(Unauthorized, match="no such key"):
            trusted.verify(issuer.token({"kid": f"made up {number}"}))
    assert len(issuer.asked) == reads
    assert trusted.verify(good).name == "ada"


def test_a_token_without_the_name_of_its_key_is_refused(issuer: Issuer) -> None:
    key = issuer.keys["first"][0]
    with pytest.raises(Unauthorized, match="no such key"):
        trusting(issuer).verify(jwt.encode(issuer.claims(), key, "RS256"))  # type: ignore[arg-type]  # an RSA key


def test_an_issuer_that_is_away_is_no_fault_of_the_token_and_heals(issuer: Issuer) -> None:
    trusted, token = trusting(issuer), issuer.token()
    issuer.away = True
    with pytest.raises(Transient, match="cannot be asked"):
        trusted.verify(token)
    issuer.away = False
    assert trusted.verify(token).name == "ada"
    issuer.away = True
    assert trusted.verify(token).name == "ada"  # its keys are known for a while


def test_an_issuer_that_was_away_is_left_in_peace_for_a_while(issuer: Issuer) -> None:
    trusted, token = trusting(issuer, pause_s=3600), issuer.token()
    issuer.away = True
    for _ in range(5):
        with pytest.raises(Transient):
            trusted.verify(token)
    assert len(issuer.asked) == 1


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/.well-known/openid-configuration", b"<html>"),
        ("/.well-known/openid-configuration", b"[]"),
        ("/.well-known/openid-configuration", b'{"issuer": "https://other.example", "jwks_uri": "https://x.example"}'),
        ("/keys", b"<html>"),
        ("/keys", b'{"keys": []}'),
        ("/keys", b'{"keys": [{"kty": "RSA"}]}'),
        ("/keys", b"null"),
    ],
)
def test_an_issuer_that_answers_nonsense_counts_as_away(issuer: Issuer, path: str, answer: bytes) -> None:
    issuer.answers[path] = answer
    with pytest.raises(Transient):
        trusting(issuer).verify(issuer.token())
    with pytest.raises(Transient):
        trusting(issuer).self_test()


@pytest.mark.parametrize("where", ["http://example.org/keys", "file:///etc/passwd", "/keys", "", None, 7])
def test_keys_that_others_could_change_on_their_way_are_not_taken(issuer: Issuer, where: Any) -> None:
    discovery = {"issuer": issuer.url, "jwks_uri": where}
    issuer.answers["/.well-known/openid-configuration"] = json.dumps(discovery).encode()
    with pytest.raises(Transient, match="in the open"):
        trusting(issuer).verify(issuer.token())


def test_a_discovery_document_of_another_issuer_names_no_keys_of_ours(issuer: Issuer) -> None:
    discovery = {"issuer": "https://evil.example", "jwks_uri": f"{issuer.url}/keys"}
    issuer.answers["/.well-known/openid-configuration"] = json.dumps(discovery).encode()
    with pytest.raises(Transient, match="another's"):
        trusting(issuer).verify(issuer.token())


def test_a_known_key_does_not_wait_while_the_issuer_hangs(issuer: Issuer) -> None:
    trusted, good, made_up = trusting(issuer), issuer.token(), issuer.token({"kid": "made up"})
    trusted.verify(good)
    reads = len(issuer.asked)
    issuer.answering.clear()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(trusted.verify, made_up)
        while len(issuer.asked) == reads:
            time.sleep(0.01)
        assert trusted.verify(good).name == "ada"
        assert not waiting.done()
        issuer.answering.set()
        assert isinstance(waiting.exception(60), Unauthorized | Transient)


def test_which_addresses_are_guarded() -> None:
    for good in ("https://a.example", "http://127.0.0.1:9", "http://localhost/x", "http://[::1]:80"):
        assert is_guarded(good)
    for bad in (
        "http://a.example",
        "ftp://a",
        "file:///x",
        "",
        "https://",
        "http://127.0.0.1.evil.example",
        "http://[x",
    ):
        assert not is_guarded(bad)


def test_a_huge_token_is_refused_before_anybody_reads_it(issuer: Issuer) -> None:
    with pytest.raises(Unauthorized, match="malformed"):
        trusting(issuer).verify(issuer.token(filler="x" * LARGEST))
    assert issuer.asked == []


def test_the_self_test_reads_the_real_documents(issuer: Issuer) -> None:
    assert trusting(issuer).self_test() == f"{issuer.url}, 1 keys (RS256)"
    issuer.away = True
    with pytest.raises(Transient):
        trusting(issuer).self_test()


@given(
    st.one_of(st.text(max_size=300), st.from_regex(r"[A-Za-z0-9_-]{0,80}\.[A-Za-z0-9_-]{0,80}\.[A-Za-z0-9_=-]{0,40}"))
)
def test_no_text_ends_in_anything_but_a_refusal(text: str) -> None:
    nobody = OidcIssuer(Trust("http://127.0.0.1:9", AUDIENCE, ROLES))
    with pytest.raises(Unauthorized, match="does not hold"):
        nobody.verify(text)


def test_deep_json_is_refused(issuer: Issuer) -> None:
    deep = base64.urlsafe_b64encode(b"[" * 9000).rstrip(b"=").decode()
    for token in (f"{deep}.e30.c2ln", f"e30.{deep}.c2ln"):
        with pytest.raises(Unauthorized, match=r"malformed|not allowed"):
            trusting(issuer).verify(token)
