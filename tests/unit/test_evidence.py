"""The evidence of a promotion: what is in a pack for every way that one can go, and that it proves itself."""

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from app.api.app import create_app
from app.db import openings
from app.db import promotions as rows
from app.db.session import Database
from app.domain.canary import Sample
from app.domain.canonical import canonical
from app.domain.errors import NotFound
from app.domain.permissions import Caller
from app.services import approvals, evidence, principals, promotions, trail
from app.verifier.headgate_verify import check_pack, kept
from tests.evidence import PEOPLE, approved, asked, keys, prepared
from tests.fakes import SCORED
from tests.plant import World
from tests.serving import headgate, served

NASTY = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}</title>\u202etxt.\u0000\ud800"


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return prepared(World(database, tmp_path))


def opened(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(world: World, number: int, people: bool = True) -> dict[str, bytes]:
    """The files of the pack, which the verifier has found good."""
    data = evidence.pack(world.core, world.store, number, people)
    check_pack(data, keys(world))
    return opened(data)


def words(world: World, number: int) -> str:
    return "\n".join(check_pack(evidence.pack(world.core, world.store, number), keys(world)))


def test_who_approved_which_bytes_on_which_evidence_under_which_policy(world: World) -> None:
    number = approved(world, asked(world))
    data = evidence.pack(world.core, world.store, number)
    said = "\n".join(check_pack(data, keys(world)))
    digest = world.show(number)["digest"]
    assert "came to LIVE in 9 steps; the evidence of 9 of them" in said
    assert f"What was asked to be approved is {digest}" in said
    assert "2 people approved just this digest; the policy asks for 2." in said
    assert all(f"'{name}': approve, this digest" in said for name in PEOPLE)
    files = opened(data)
    assert f"sha256:{hashlib.sha256(files['release.json']).hexdigest()}" == digest
    for name in ("parity", "latency", "served-latency", "slices-1"):
        assert files[f"pictures/{name}.png"].startswith(b"\x89PNG")


def test_the_same_promotion_at_the_same_trail_gives_the_same_bytes(world: World) -> None:
    number = approved(world, asked(world))
    first = evidence.pack(world.core, world.store, number)
    assert evidence.pack(world.core, world.store, number) == first
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert archive.namelist() == sorted(archive.namelist())
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_checkpoints_from_outside_agree(world: World) -> None:
    number = asked(world)
    trail.give_away(world.core, world.anchor)
    approved(world, number)
    outside = kept(world.folder / "checkpoints")
    said = "\n".join(check_pack(evidence.pack(world.core, world.store, number), keys(world), outside))
    assert "1 checkpoints from outside agree; 8 of the leaves are in them, too." in said


def _rejected_by_a_gate(world: World) -> int:
    world.sandbox.results["score"] = {**SCORED, "metrics": {"rmse": 0.9}}
    return asked(world)


def _refused_by_the_sandbox(world: World) -> int:
    world.sandbox.results["convert"] = {"refused": {"code": "no", "reason": "no such estimator", "remedy": "Use one."}}
    return asked(world)


def _denied(world: World) -> int:
    number = asked(world)
    digest = world.show(number)["digest"]
    approvals.decide(world.core, number, Caller("rita", "reviewer"), "reject", digest, "not on my watch")
    world.run(number)
    return number


def _cancelled_before_it_began(world: World) -> int:
    first, second = asked(world), asked(world, version="2")
    assert first != second
    promotions.cancel(world.core, second, "never mind", "bob.jones")
    return second


def _rolled_back(world: World) -> int:
    approved(world, asked(world))
    number = asked(world, version="2")
    world.metrics.seen = Sample(100, 40, 2.0)
    return approved(world, number)


def _just_requested(world: World) -> int:
    return world.ask("1")


def _tried_again(world: World) -> int:
    world.server.broken = RuntimeError("no room")
    number = asked(world)
    while world.show(number)["state"] != "FAILED":
        with world.database.begin() as session:
            rows.wake(session, number)
        world.run(number)
    world.server.broken = None
    promotions.retry(world.core, number, "ada")
    world.run(number)
    return approved(world, number)


@pytest.mark.parametrize(
    ("way", "state"),
    [
        (_rejected_by_a_gate, "REJECTED"),
        (_refused_by_the_sandbox, "REJECTED"),
        (_denied, "DENIED"),
        (_cancelled_before_it_began, "CANCELLED"),
        (_rolled_back, "ROLLED_BACK"),
        (_just_requested, "REQUESTED"),
        (asked, "APPROVAL"),
        (_tried_again, "LIVE"),
    ],
)
def test_every_promotion_has_evidence_that_holds(world: World, way: Any, state: str) -> None:
    number = way(world)
    files = packed(world, number)
    assert json.loads(files["promotion.json"])["state"] == state == world.show(number)["state"]
    assert f"came to {state}" in words(world, number)
    assert _findings(files["bom.cdx.json"]) is None
    assert state in _shown(files["index.html"])


def test_no_promotion_no_evidence(world: World) -> None:
    with pytest.raises(NotFound):
        evidence.pack(world.core, world.store, 77)


def test_without_people_a_pack_names_nobody_and_proves_the_same(world: World) -> None:
    number = approved(world, asked(world, "Bob's wedding model"), "Bob asked me nicely")
    data = evidence.pack(world.core, world.store, number, people=False)
    for personal in (b"rita.smith", b"max@", b"bob", b"Bob", b"wedding", b"nicely"):
        assert personal not in data
    said = "\n".join(check_pack(data, keys(world)))
    assert "2 people approved just this digest" in said and "0 of 7 names" in said


def test_after_a_person_was_erased_the_rest_still_holds(world: World) -> None:
    number = approved(world, asked(world, "Bob's wedding model"), "looks right")
    with world.database.begin() as session:
        openings.erase(session, PEOPLE[0])
        openings.erase(session, "bob.jones")
    data = evidence.pack(world.core, world.store, number)
    assert b"rita.smith" not in data and b"wedding" not in data and b"bob.jones" not in data
    assert PEOPLE[1].encode() in data
    said = "\n".join(check_pack(data, keys(world)))
    assert "2 people approved just this digest" in said and "3 of 7 names" in said


def test_what_the_store_has_lost_costs_only_itself(world: World) -> None:
    number = asked(world)
    picture = world.store.file(world.show(number)["evidence"]["gates"]["pictures"]["latency"])
    picture.chmod(0o644)
    picture.write_bytes(b"another picture")
    world.store.file(world.show(number)["evidence"]["prove"]["pictures"]["served-latency"]).unlink()
    files = packed(world, number)
    assert "pictures/latency.png" not in files and "pictures/served-latency.png" not in files
    assert "pictures/parity.png" in files


def test_the_statement_is_one_of_in_toto_about_the_bytes(world: World) -> None:
    number = approved(world, asked(world))
    files = packed(world, number)
    envelope = json.loads(files["statement.dsse.json"])
    payload = base64.b64decode(envelope["payload"])
    # DSSE, by its own words: the signature is over the type and the payload with their lengths.
    text = f"DSSEv1 28 application/vnd.in-toto+json {len(payload)} ".encode() + payload
    key = keys(world)[0]
    Ed25519PublicKey.from_public_bytes(key.key).verify(base64.b64decode(envelope["signatures"][0]["sig"]), text)
    assert envelope["signatures"][0]["keyid"] == f"{key.name}+{key.identity.hex()}"
    statement = json.loads(payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    digests = {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
    seen = world.show(number)["evidence"]
    assert digests == {
        "model": hashlib.sha256(files["model-files.json"]).hexdigest(),
        "onnx": hashlib.sha256(b"onnx").hexdigest(),
        "config": hashlib.sha256(files["config.pbtxt"]).hexdigest(),
        "image": hashlib.sha256(files["served-files.json"]).hexdigest(),
        "MANIFEST": hashlib.sha256(files["MANIFEST"]).hexdigest(),
    }
    assert seen["snapshot"]["tree"] == f"sha256:{digests['model']}"
    assert statement["predicate"]["state"] == "LIVE"
    assert not any(name.encode() in payload for name in PEOPLE)


def _findings(document: bytes) -> object:
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(document.decode())


def test_the_bill_of_materials_is_one_of_cyclonedx(world: World) -> None:
    number = approved(world, asked(world))
    files = packed(world, number)
    assert _findings(files["bom.cdx.json"]) is None
    found = json.loads(files["bom.cdx.json"])
    model = found["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", "airbnb-price", "1")
    measured = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert {"type": "rmse", "value": "0.5", "slice": "all judging rows"} in measured
    assert {"type": "rmse", "value": "0.5", "slice": "city=Ulm, room=shared (60 rows)"} in measured
    kinds = {part["bom-ref"]: part for part in found["components"]}
    rows = hashlib.sha256(world.buckets.objects["s3://rows/holdout.csv"]).hexdigest()
    assert kinds["judging-rows"]["hashes"] == [{"alg": "SHA-256", "content": rows}]
    assert kinds["onnx"]["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(b"onnx").hexdigest()}]
    assert any(name.startswith("pkg:pypi/onnx@") for name in kinds)
    assert len(kinds) == len(found["components"])


class _Page(HTMLParser):
    """The words that a page shows, and the elements that it is made of."""

    def __init__(self, document: bytes) -> None:
        super().__init__()
        self.words, self.elements, self.attributes = "", set[str](), set[str]()
        self._hidden = False
        self.feed(document.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self._hidden = tag in ("style", "title")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        self.words += "" if self._hidden else data


def _shown(document: bytes) -> str:
    return _Page(document).words


def test_the_page_says_it_all_to_people(world: World) -> None:
    number = approved(world, asked(world, "fewer errors in Brooklyn"), "I looked at the groups")
    shown = _shown(packed(world, number)["index.html"])
    for said in (world.show(number)["digest"], *PEOPLE, "bob.jones", "fewer errors in Brooklyn"):
        assert said in shown
    for said in ("I looked at the groups", "slices rmse by city, room", "100 %", "ROLLOUT", "headgate_verify.pyz pack"):
        assert said in shown


def test_whatever_people_and_models_say_stays_words(database: Database, tmp_path: Path) -> None:
    world = prepared(World(database, tmp_path), groups=(NASTY[:-2], "Ulm"))
    number = approved(world, asked(world, NASTY, f"bob {NASTY}"), NASTY, (f"a {NASTY}", f"b {NASTY}"))
    files = packed(world, number)
    page = _Page(files["index.html"])
    assert not page.elements & {"script", "iframe", "object", "embed", "link", "form", "base", "a"}
    assert not {name for name in page.attributes if name.startswith("on")}
    assert "<script>alert(1)</script>" in page.words and "{{ 7 * 7 }}" in page.words
    # What turns the direction of writing, or cannot be seen, is written out.
    assert "\u202e" not in page.words and "\\u{202e}txt" in page.words
    assert _findings(files["bom.cdx.json"]) is None


def test_the_page_asks_nobody_for_anything(world: World) -> None:
    document = packed(world, approved(world, asked(world)))["index.html"].decode()
    assert "default-src 'none'; img-src data:" in document
    style = document.partition("<style>")[2].partition("</style>")[0]
    assert f"sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}" in document
    assert "src=" in document and all(part.startswith("data:image/png") for part in document.split('src="')[1:])


@pytest.fixture
def client(world: World) -> Iterator[httpx.Client]:
    token = principals.create(world.database, "rob", "reviewer", "test")
    app = create_app(world.core, lambda *_: None, world.store)
    headers = {"Authorization": f"Bearer {token}"}
    with served(app) as url, httpx.Client(base_url=url, headers=headers, trust_env=False) as http:
        yield http


def test_evidence_over_rest_and_by_the_command_line(world: World, client: httpx.Client, tmp_path: Path) -> None:
    number = approved(world, asked(world))
    answer = client.get(f"/api/v1/promotions/{number}/evidence")
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/zip"
    assert f'filename="promotion-{number}.zip"' in answer.headers["content-disposition"]
    check_pack(answer.content, keys(world))
    done = headgate(client, "evidence", str(number), str(tmp_path / "it.zip"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "it.zip").read_bytes() == answer.content
    nameless = headgate(client, "evidence", str(number), str(tmp_path / "other.zip"), "--no-people", "--json")
    told = json.loads(nameless.stdout)
    assert told["sha256"] == hashlib.sha256((tmp_path / "other.zip").read_bytes()).hexdigest()
    assert PEOPLE[0].encode() not in (tmp_path / "other.zip").read_bytes()
    assert headgate(client, "evidence", "77", str(tmp_path / "none.zip")).returncode == 1
    assert headgate(client, "evidence", str(number), str(tmp_path / "no" / "it.zip")).returncode == 1
    assert client.get("/api/v1/promotions/77/evidence").status_code == 404
    assert httpx.get(f"{client.base_url}/api/v1/promotions/{number}/evidence", trust_env=False).status_code == 401


def test_files_with_digests_are_canonical(world: World) -> None:
    files = packed(world, approved(world, asked(world)))
    for name in files:
        if name.startswith("evidence/") or name in ("policy.json", "release.json"):
            assert files[name] == canonical(json.loads(files[name]))
