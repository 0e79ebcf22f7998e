"""Principals and tokens over the API: made, narrowed, ended, linked, and vouched for by an issuer."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from app.adapters.oidc import OidcIssuer, Trust
from app.api.app import create_app
from app.db.models import Token
from app.db.session import Database, now
from app.domain.errors import Forbidden, Unauthorized
from app.domain.permissions import PERMISSIONS, Caller, Permission, Role
from app.services import principals, tokens, trail
from app.services.tokens import Wanted
from tests.issuer import AUDIENCE, Issuer, issuing
from tests.plant import World
from tests.serving import headgate, served

ROLES = {"ml-admins": "admin", "ml-reviewers": "reviewer", "ml": "requester", "robots": "reviewer"}


class Api:
    """An API with one admin, over a database."""

    def __init__(self, database: Database, http: httpx.Client) -> None:
        self.database, self.http = database, http
        self.admin = principals.create(database, "root", "admin", "test")

    def call(self, token: str, method: str, path: str, body: Any = None) -> httpx.Response:
        return self.http.request(method, f"/api/v1{path}", headers={"Authorization": f"Bearer {token}"}, json=body)

    def make(self, **body: Any) -> dict[str, Any]:
        answer = self.call(self.admin, "POST", "/tokens", body)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def status(self, token: str) -> int:
        return self.call(token, "GET", "/promotions").status_code

    def leaves(self, kind: str) -> list[dict[str, Any]]:
        return [leaf["body"] for leaf in trail.page(self.database, 0, 1000) if leaf["kind"] == kind]

    def listed(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in self.call(self.admin, "GET", "/principals").json()["items"]}


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuing() as running:
        yield running


@pytest.fixture
def api(database: Database, tmp_path: Path, issuer: Issuer) -> Iterator[Api]:
    world = World(database, tmp_path)
    trusted = OidcIssuer(Trust(issuer.url, AUDIENCE, ROLES, ["robots"]), pause_s=0)
    app = create_app(world.core, lambda headers, body, now: None, world.store, identities=trusted)
    with served(app) as url, httpx.Client(base_url=url, trust_env=False) as http:
        yield Api(database, http)


def expire(api: Api, number: int) -> None:
    with api.database.begin() as session:
        past = now(session) - timedelta(seconds=1)
        session.execute(update(Token).where(Token.id == number).values(expires_at=past))


def test_a_token_is_shown_once_and_kept_as_a_hash(api: Api) -> None:
    answer = api.call(api.admin, "POST", "/tokens", {"name": "rita", "role": "reviewer"})
    made = answer.json()
    assert answer.headers["Cache-Control"] == "no-store"
    assert (made["kind"], made["person"], made["scopes"], made["state"]) == ("person", "rita", None, "live")
    assert api.status(made["token"]) == 200
    seen = api.call(api.admin, "GET", "/principals").text + json.dumps(trail.page(api.database, 0, 1000))
    assert "rita" in api.listed()
    assert made["token"] not in seen and tokens.hashed(made["token"]) not in seen


def test_a_principal_has_several_tokens_that_end_one_by_one(api: Api) -> None:
    first, second = api.make(name="rita", role="reviewer"), api.make(name="rita", expires="1h")
    assert second["role"] == "reviewer"
    ended = api.call(api.admin, "POST", f"/tokens/{first['id']}/revoke")
    assert (ended.status_code, ended.json()["state"]) == (200, "revoked")
    assert "token" not in ended.json()
    refused = api.call(first["token"], "GET", "/promotions")
    assert (refused.status_code, refused.json()["title"]) == (
        401,
        f"The bearer token (number {first['id']}) was revoked.",
    )
    assert api.status(second["token"]) == 200
    expire(api, second["id"])
    refused = api.call(second["token"], "GET", "/promotions")
    assert refused.status_code == 401 and "expired" in refused.json()["title"]
    for token in (first["token"], second["token"]):
        assert token not in refused.text
    assert [one["state"] for one in api.listed()["rita"]["tokens"]] == ["revoked", "expired"]
    # to revoke it again changes nothing, not even the trail
    api.call(api.admin, "POST", f"/tokens/{first['id']}/revoke")
    assert [leaf["token"] for leaf in api.leaves("token.revoked")] == [first["id"]]
    assert api.call(api.admin, "POST", "/tokens/9999/revoke").status_code == 404


def test_unknown_tokens_are_refused_without_an_echo(api: Api) -> None:
    for token in ("hg_unknown", "hg_" + "x" * 9000, "hg_", "a.b.c", "nonsense", tokens.hashed(api.admin)):
        answer = api.call(token, "GET", "/promotions")
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert token == "hg_" or token not in answer.text


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"role": "king"}, 422, "role"),
        ({"role": "ci", "kind": "person"}, 422, "kind"),
        ({"role": "reviewer", "kind": "machine"}, 422, "role"),
        ({"role": "reviewer", "kind": "robot"}, 422, "kind"),
        ({"role": "reviewer", "expires": "366d"}, 422, "expires"),
        ({"role": "reviewer", "expires": "59s"}, 422, "expires"),
        ({"role": "reviewer", "expires": "-1d"}, 422, "expires"),
        ({"role": "reviewer", "expires": "soon"}, 422, "expires"),
        ({"role": "reviewer", "scopes": []}, 422, "scopes"),
        ({"role": "reviewer", "scopes": ["administer"]}, 422, "scopes"),
        ({"role": "reviewer", "scopes": ["everything"]}, 422, "scopes.0"),
        ({"role": "admin", "kind": "machine", "scopes": ["decide"]}, 422, "scopes"),
        ({"role": "reviewer", "name": "a/b"}, 422, "name"),
        ({"role": "reviewer", "name": ""}, 422, "name"),
        ({"role": "reviewer", "name": "root"}, 409, ""),
        ({"role": "reviewer", "person": "nobody"}, 404, ""),
        ({}, 404, ""),
        ({"name": "root", "kind": "machine"}, 409, ""),
        ({"name": "root", "person": "root"}, 409, ""),
    ],
)
def test_what_cannot_be_made_is_said_by_field_and_leaves_nothing(
    api: Api, body: dict[str, Any], status: int, field: str
) -> None:
    before = trail.page(api.database, 0, 1000)
    answer = api.call(api.admin, "POST", "/tokens", {"name": "new", **body})
    assert (answer.status_code, answer.json().get("field", "")) == (status, field), answer.text
    assert set(api.listed()) == {"root"}
    assert trail.page(api.database, 0, 1000) == before


def test_ci_is_a_machine_and_no_machine_decides(api: Api) -> None:
    ci, robot = api.make(name="pipeline", role="ci"), api.make(name="robot", role="admin", kind="machine")
    assert (ci["kind"], robot["kind"]) == ("machine", "machine")
    body = {"decision": "approve", "digest": "sha256:" + "0" * 64, "reason": "x"}
    for path in ("/promotions/1/approvals", "/promotions/1/decide"):
        refused = api.call(robot["token"], "POST", path, body)
        assert refused.status_code == 403 and "a machine" in refused.json()["title"]
    caller = principals.authenticate(api.database, robot["token"])
    assert caller.machine and caller.may(Permission.ADMINISTER)
    assert not caller.may(Permission.DECIDE) and not caller.may(Permission.BREAK_GLASS)
    # and it makes nobody who does
    assert api.call(robot["token"], "POST", "/tokens", {"name": "puppet", "role": "reviewer"}).status_code == 403


def test_scopes_take_away_and_never_add(api: Api) -> None:
    narrow = api.make(name="reader", role="requester", scopes=["read"])
    assert (narrow["scopes"], api.status(narrow["token"])) == (["read"], 200)
    ask = {"model": "m", "version": "1", "environment": "production"}
    assert api.call(narrow["token"], "POST", "/promotions", ask).status_code == 403
    assert api.status(api.make(name="mute", role="requester", scopes=["cancel"])["token"]) == 403


def test_a_narrow_token_makes_no_wider_one(api: Api) -> None:
    narrow = api.make(name="clerk", role="admin", scopes=["administer", "read"])["token"]
    refused = api.call(narrow, "POST", "/tokens", {"name": "a", "role": "admin"})
    assert refused.status_code == 403 and "decide" in refused.json()["title"]
    for body in (
        {"name": "b", "role": "requester"},
        {"name": "clerk"},
        {"name": "root", "scopes": ["read", "audit"]},
        {"name": "c", "role": "auditor", "scopes": ["audit"]},
    ):
        assert api.call(narrow, "POST", "/tokens", body).status_code == 403, body
    assert set(api.listed()) == {"root", "clerk"}
    fine = api.call(narrow, "POST", "/tokens", {"name": "d", "role": "requester", "scopes": ["read"]})
    assert fine.status_code == 201
    assert api.call(narrow, "POST", "/tokens", {"name": "clerk", "scopes": ["administer"]}).status_code == 201


@pytest.mark.parametrize("giver_role", list(Role))
def test_nobody_gives_away_what_he_has_not(database: Database, giver_role: Role) -> None:
    """Every role, by every narrowing to two scopes, to every role: what was given is a part of what the giver has."""
    for first in Permission:
        for second in Permission:
            giver = Caller("giver", giver_role, scopes=frozenset({first, second}))
            has = PERMISSIONS[giver_role] & {first, second}
            for role in Role:
                wanted = Wanted(f"{first}.{second}.{role}", role)
                try:
                    token = tokens.issue(database, wanted, "giver", giver)["token"]
                except Forbidden:
                    continue
                made = principals.authenticate(database, token)
                assert {one for one in Permission if made.may(one)} <= has


def test_two_identities_of_one_person_are_one_person(api: Api) -> None:
    ada, also = api.make(name="ada", role="reviewer"), api.make(name="ada.laptop", role="requester", person="ada")
    third, robot = api.make(name="ada.work", role="auditor"), api.make(name="pipeline", role="ci")
    assert also["person"] == "ada"
    linked = api.call(api.admin, "POST", "/principals/ada/link", {"person": "ada.work"})
    assert (linked.status_code, linked.json()["person"]) == (200, "ada.work")
    assert api.call(api.admin, "POST", "/principals/pipeline/link", {"person": "ada.laptop"}).status_code == 200
    for made in (ada, also, third, robot):
        assert principals.authenticate(api.database, made["token"]).counts_as == "ada.work"
    leaves = len(api.leaves("principal.linked"))
    for pair in (("ada.work", "ada"), ("ada", "ada.laptop"), ("ada", "ada")):
        assert api.call(api.admin, "POST", f"/principals/{pair[0]}/link", {"person": pair[1]}).status_code == 200
    assert len(api.leaves("principal.linked")) == leaves == 2
    for pair in (("root", "nobody"), ("nobody", "root")):
        assert api.call(api.admin, "POST", f"/principals/{pair[0]}/link", {"person": pair[1]}).status_code == 404
    assert api.listed()["root"]["person"] == "root"


def test_a_person_is_not_called_by_the_name_of_a_machine(api: Api) -> None:
    for name in ("m1", "m2", "m3", "m4"):
        api.make(name=name, role="ci")
    api.make(name="ada", role="requester", person="m1")
    for pair in (("m2", "m3"), ("m1", "m2"), ("ada", "m4")):
        assert api.call(api.admin, "POST", f"/principals/{pair[0]}/link", {"person": pair[1]}).status_code == 200
    assert {row["person"] for name, row in api.listed().items() if name != "root"} == {"ada"}


def test_links_that_meet_leave_one_person(database: Database) -> None:
    for number in range(5):
        names = [f"{letter}{number}" for letter in "abcdef"]
        for name in names:
            principals.create(database, name, "requester", "test")
        pairs = zip(names, [*names[1:], names[0]], strict=True)
        with ThreadPoolExecutor(6) as pool:
            for answer in [pool.submit(principals.link, database, one, other, "test") for one, other in pairs]:
                answer.result()
    people = {row["name"]: row["person"] for row in tokens.listed(database, "", 100)["items"]}
    assert len(people) == 30 and len(set(people.values())) == 5
    assert all(name[1] == person[1] for name, person in people.items())


def test_every_deed_is_in_the_trail(api: Api) -> None:
    made = api.make(name="rita", role="reviewer", scopes=["read", "decide"], expires="1d")
    api.make(name="rita2", role="requester", person="rita")
    api.call(api.admin, "POST", f"/tokens/{made['id']}/revoke")
    api.call(api.admin, "POST", "/principals/rita/link", {"person": "root"})
    created = api.leaves("token.created")[1]
    assert (created["token"], created["scopes"], created["role"]) == (made["id"], ["decide", "read"], "reviewer")
    assert created["expires"].startswith(made["expires_at"][:10])
    assert [leaf["role"] for leaf in api.leaves("principal.created")] == ["admin", "reviewer", "requester"]
    assert api.leaves("token.revoked")[0]["token"] == made["id"]
    (linked,) = api.leaves("principal.linked")
    assert linked["role"] == "reviewer" and linked["name"] != linked["with"] == linked["person"]
    assert trail.verify(api.database).verified


def test_principals_come_page_by_page(api: Api) -> None:
    for name in ("b", "a", "c"):
        api.make(name=name, role="auditor")
    first = api.call(api.admin, "GET", "/principals?limit=3").json()
    rest = api.call(api.admin, "GET", f"/principals?limit=3&after={first['cursor']}").json()
    assert [row["name"] for row in first["items"] + rest["items"]] == ["a", "b", "c", "root"]
    assert rest["cursor"] is None


def test_somebody_whom_the_issuer_vouches_for_is_a_principal_at_first_sight(api: Api, issuer: Issuer) -> None:
    for _ in range(2):
        assert api.status(issuer.token()) == 200
    (created,) = [leaf for leaf in api.leaves("principal.created") if "issuer" in leaf]
    assert (created["role"], created["issuer"], created["kind"]) == ("reviewer", issuer.url, "person")
    assert "subject-1" not in json.dumps(trail.page(api.database, 0, 1000))
    row = api.listed()["ada"]
    assert (row["issuer"], row["subject"], row["tokens"]) == (issuer.url, "subject-1", [])
    # she has no tokens of ours, which would outlive what the issuer says of her
    assert api.call(api.admin, "POST", "/tokens", {"name": "ada"}).status_code == 409


def test_the_issuers_present_word_counts_at_once(api: Api, issuer: Issuer) -> None:
    assert api.call(issuer.token(groups=["ml-admins"]), "GET", "/principals").status_code == 200
    assert api.call(issuer.token(groups=["ml"]), "GET", "/principals").status_code == 403
    assert api.listed()["ada"]["role"] == "requester"
    refused = api.call(issuer.token(groups=["others"]), "GET", "/promotions")
    assert refused.status_code == 403 and "HEADGATE_OIDC_ROLES" in refused.json()["detail"]
    assert [leaf["role"] for leaf in api.leaves("principal.changed")] == ["requester"]
    caller = principals.authenticate(
        api.database, issuer.token(groups=["robots"]), OidcIssuer(Trust(issuer.url, AUDIENCE, ROLES, ["robots"]))
    )
    assert (caller.role, caller.machine, caller.may(Permission.DECIDE)) == ("reviewer", True, False)


def test_a_name_that_is_taken_is_not_taken_over(api: Api, issuer: Issuer) -> None:
    for name, subject in (("root", "s1"), ("ada", "s2"), ("ada", "s3"), ("a/b <x>", "s4"), ("", "s5")):
        assert api.status(issuer.token(preferred_username=name, sub=subject)) == 200
    listed = api.listed()
    by_subject = {row["subject"]: name for name, row in listed.items()}
    assert (listed["root"]["issuer"], by_subject["s2"]) == (None, "ada")
    assert by_subject["s1"].startswith("root.") and by_subject["s3"].startswith("ada.")
    assert by_subject["s4"] == "a-b-x" and by_subject["s5"].startswith("somebody.")
    assert len({row["person"] for row in listed.values()}) == 6
    # nor by somebody who is made here later
    assert api.call(api.admin, "POST", "/tokens", {"name": "ada", "role": "admin"}).status_code == 409


def test_many_first_sights_at_once_make_one_principal(api: Api, issuer: Issuer) -> None:
    token = issuer.token()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(api.status, [token] * 16)) == [200] * 16
    assert set(api.listed()) == {"root", "ada"}
    assert len([leaf for leaf in api.leaves("principal.created") if "issuer" in leaf]) == 1


def test_an_issuer_that_is_away_is_503_and_our_own_tokens_go_on(api: Api, issuer: Issuer) -> None:
    issuer.away = True
    answer = api.call(issuer.token(), "GET", "/promotions")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert api.status(api.admin) == 200
    issuer.away = False
    assert api.status(issuer.token(exp=1)) == 401
    assert api.status(issuer.token()) == 200


def test_when_somebody_signed_in_is_known(api: Api, issuer: Issuer) -> None:
    trusted = OidcIssuer(Trust(issuer.url, AUDIENCE, ROLES))
    for claim, at in (("iat", 1_700_000_000), ("auth_time", 1_600_000_000)):
        caller = principals.authenticate(api.database, issuer.token(None, **{claim: at}), trusted)
        assert caller.authenticated_at is not None and caller.authenticated_at.timestamp() == at
    made = api.make(name="rita", role="reviewer")
    caller = principals.authenticate(api.database, made["token"])
    assert caller.authenticated_at is not None and caller.authenticated_at.isoformat() == made["created_at"]


def test_the_first_admin_is_made_once_and_never_locked_out(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "admin.token"
    assert principals.bootstrap(database, file)
    assert file.stat().st_mode & 0o777 == 0o600
    first = file.read_text().strip()
    assert principals.authenticate(database, first).role == "admin"
    assert not principals.bootstrap(database, file)
    number = tokens.listed(database, "", 10)["items"][0]["tokens"][0]["id"]
    tokens.revoke(database, number, "admin")
    # where people sign in at an issuer nobody is missed
    assert not principals.bootstrap(database, file, anew=False)
    assert principals.bootstrap(database, file)
    with pytest.raises(Unauthorized):
        principals.authenticate(database, first)
    assert principals.authenticate(database, file.read_text().strip()).may(Permission.ADMINISTER)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("admin")] == ["admin.token"]


def test_the_command_line_makes_lists_revokes_and_links(api: Api) -> None:
    client = httpx.Client(base_url=api.http.base_url, headers={"Authorization": f"Bearer {api.admin}"})
    made = headgate(client, "token", "create", "rita", "--role", "reviewer", "--scope", "read", "--expires", "2d")
    assert api.status(made.stdout.strip()) == 200
    robot = headgate(
        client, "token", "create", "robot", "--role", "requester", "--machine", "--person", "rita", "--json"
    )
    number = json.loads(robot.stdout)["id"]
    assert headgate(client, "token", "revoke", str(number)).stdout == f"token {number} of robot is revoked\n"
    assert headgate(client, "principal", "link", "rita", "--person", "root").stdout == "rita counts as root\n"
    listed = headgate(client, "token", "list").stdout
    assert all(word in listed for word in ("rita", "robot", "revoked", "machine", "root"))
    assert made.stdout.strip() not in listed
    refused = headgate(client, "token", "create", "rita", "--role", "reviewer")
    assert refused.returncode == 1 and "already a principal named rita" in refused.stderr
    client.close()
