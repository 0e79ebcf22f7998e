"""The verifier finds whatever was done to a pack, also where whoever did it can pack it anew; and cries no wolf."""

import base64
import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.adapters.audit_keys import KeyFiles
from app.db.session import Database
from app.domain.canonical import canonical
from app.services import evidence, trail
from app.services.evidence.archive import archive, manifest
from app.verifier import headgate_verify
from app.verifier.headgate_verify import Bad, Key, check_pack, kept, read_pack
from tests.evidence import approved, asked, keys, prepared
from tests.plant import World

Files = dict[str, bytes]


class Case:
    """Two promotions with their packs, the keys, and the checkpoints that were kept outside."""

    def __init__(self, world: World) -> None:
        self.world = world
        first = asked(world)
        trail.give_away(world.core, world.anchor)
        approved(world, first)
        second = approved(world, asked(world, version="2"))
        trail.give_away(world.core, world.anchor)
        self.data, self.other = (evidence.pack(world.core, world.store, number) for number in (first, second))
        self.files, self.keys = read_pack(self.data), keys(world)
        self.outside = kept(world.folder / "checkpoints")

    def signed_anew(self, files: Mapping[str, bytes], **changes: Any) -> bytes:
        """The files with a MANIFEST and a statement that fit them, as whoever has stolen the key can make them."""
        listed = manifest({n: d for n, d in files.items() if n not in ("MANIFEST", "statement.dsse.json")})
        statement = json.loads(base64.b64decode(json.loads(files["statement.dsse.json"])["payload"]))
        for subject in statement["subject"]:
            if subject["name"] == "MANIFEST":
                subject["digest"]["sha256"] = hashlib.sha256(listed).hexdigest()
        statement["predicate"] |= changes
        return archive({**files, "MANIFEST": listed, "statement.dsse.json": self.envelope(statement)})

    def envelope(self, statement: Any, signer: KeyFiles | None = None) -> bytes:
        payload = canonical(statement)
        text = b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(payload), payload)
        signatures = [
            {"keyid": key.name, "sig": base64.b64encode(signature).decode()}
            for key, signature in (signer or self.world.signer).sign("any", text)
        ]
        named = {"payloadType": "application/vnd.in-toto+json", "payload": base64.b64encode(payload).decode()}
        return canonical({**named, "signatures": signatures})


@pytest.fixture(scope="module")
def case(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    database = Database(new_database())
    yield Case(prepared(World(database, tmp_path_factory.mktemp("world"))))
    database.close()


def found(data: bytes, keys: list[Key], outside: list[str] | None = None) -> str:
    """What the verifier finds wrong."""
    with pytest.raises(Bad) as bad:
        check_pack(data, keys, outside or [])
    return str(bad.value)


def test_a_true_pack_holds(case: Case) -> None:
    for data in (case.data, case.other):
        assert any("from outside agree" in line for line in check_pack(data, case.keys, case.outside))


def test_a_change_of_any_file_is_found(case: Case) -> None:
    for name, data in case.files.items():
        for changed in (data[:-1], data + b"\n", bytes([data[0] ^ 1]) + data[1:], b""):
            if (name, changed) == ("statement.dsse.json", data + b"\n"):
                continue  # around what is signed in there an empty line says nothing
            found(archive({**case.files, name: changed}), case.keys)


def test_a_file_that_goes_or_comes_is_found_and_people_may_be_forgotten(case: Case) -> None:
    for name in case.files:
        data = archive({n: d for n, d in case.files.items() if n != name})
        if name in ("people.json", "index.html"):
            assert f"{name} was taken out of the pack" in "\n".join(check_pack(data, case.keys))
        else:
            found(data, case.keys)
    assert "not in MANIFEST" in found(archive({**case.files, "more.json": b"{}"}), case.keys)


@pytest.mark.parametrize("seed", range(4))
def test_no_single_change_of_a_byte_goes_unseen(case: Case, seed: int) -> None:
    random = Random(seed)
    for _ in range(60):
        place = random.randrange(len(case.data))
        changed = bytearray(case.data)
        changed[place] ^= 1 << random.randrange(8)
        try:
            check_pack(bytes(changed), case.keys)
        except Bad:
            continue
        # Only what no reader looks at may differ: times and versions in the archive's own headers, never a file.
        assert read_pack(bytes(changed)) == case.files
    for end in (0, 1, len(case.data) // 2, len(case.data) - 1):
        found(case.data[:end], case.keys)


def _json(files: Files, name: str, change: Callable[[Any], Any]) -> Files:
    value = json.loads(files[name])
    return {**files, name: canonical(change(value))}


def _foreign_leaf(case: Case) -> Files:
    foreign = json.loads(read_pack(case.other)["leaves.json"])
    return _json(case.files, "leaves.json", lambda leaves: [leaves[0], foreign[0], *leaves[2:]])


def _foreign_approvals(case: Case) -> Files:
    """The approvals of another promotion in the place of one's own, with proofs that hold."""
    foreign = [e for e in json.loads(read_pack(case.other)["leaves.json"]) if '"kind":"approval"' in e["leaf"]]
    return _json(
        case.files, "leaves.json", lambda own: [*(e for e in own if '"kind":"approval"' not in e["leaf"]), *foreign]
    )


def _without(kind: str) -> Callable[[Case], Files]:
    return lambda case: _json(
        case.files, "leaves.json", lambda own: [e for e in own if f'"kind":"{kind}"' not in e["leaf"]]
    )


def _changed_leaf(case: Case) -> Files:
    def change(own: Any) -> Any:
        return [{**e, "leaf": e["leaf"].replace('"role":"reviewer"', '"role":"admin"')} for e in own]

    return _json(case.files, "leaves.json", change)


def _other_policy(case: Case) -> Files:
    return _json(case.files, "policy.json", lambda p: {**p, "approvals": {**p["approvals"], "required": 0}})


def _better_numbers(case: Case) -> Files:
    return _json(case.files, "evidence/005-gates.json", lambda gates: {**gates, "verdict": "better"})


def _other_evidence_of_approval(case: Case) -> Files:
    return _json(case.files, "evidence/008-approval.json", lambda said: {**said, "approved_by": ["the board"]})


def _other_release(case: Case) -> Files:
    return _json(case.files, "release.json", lambda parts: {**parts, "onnx": f"sha256:{'0' * 64}"})


def _foreign_release(case: Case) -> Files:
    return {**case.files, "release.json": read_pack(case.other)["release.json"]}


def _other_model_files(case: Case) -> Files:
    return _json(case.files, "model-files.json", lambda files: [["MLmodel", 1, "0" * 64], *files])


def _other_config(case: Case) -> Files:
    return {**case.files, "config.pbtxt": b"backend: 'python'"}


def _other_name(case: Case) -> Files:
    def change(people: Any) -> Any:
        return {**people, "openings": [{**opening, "value": "the board"} for opening in people["openings"]]}

    return _json(case.files, "people.json", change)


def _foreign_people(case: Case) -> Files:
    return {**case.files, "people.json": read_pack(case.other)["people.json"]}


def _made_up_step(case: Case) -> Files:
    return {**case.files, "evidence/042-gates.json": b"{}"}


def _foreign_checkpoint(case: Case) -> Files:
    return {**case.files, "checkpoint.txt": case.outside[0].encode()}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_foreign_leaf, "is not about promotion"),
        (_foreign_approvals, "is not about promotion"),
        (_without("approval"), "rolled out after 0 approvals"),
        (_without("promotion.requested"), "does not begin with the leaf of the request"),
        (_without("promotion.transition"), "no leaf is about evidence"),
        (_changed_leaf, "not in the trail"),
        (_other_policy, "not the policy that the leaves name"),
        (_better_numbers, "not what leaf"),
        (_other_evidence_of_approval, "not what leaf"),
        (_other_release, "release.json is not what waited for approval"),
        (_foreign_release, "release.json is not what waited for approval"),
        (_other_model_files, "model-files.json is not what was approved"),
        (_other_config, "config.pbtxt is not what was approved"),
        (_other_name, "people.json says"),
        (_foreign_people, "people.json says"),
        (_made_up_step, "no leaf is about evidence/042-gates.json"),
        (_foreign_checkpoint, "another checkpoint"),
    ],
)
def test_also_with_the_key_nobody_can_say_what_the_trail_does_not(
    case: Case, change: Callable[[Case], Files], reason: str
) -> None:
    assert reason in found(case.signed_anew(change(case)), case.keys)


def test_the_statement_cannot_be_about_something_else(case: Case) -> None:
    check_pack(case.signed_anew(case.files), case.keys)
    lies: list[dict[str, Any]] = [{"promotion": 2}, {"promotion": None}, {"state": "DENIED"}, {"release": "x"}]
    for changes in [*lies, {"trail": {}}]:
        found(case.signed_anew(case.files, **changes), case.keys)
    statement = json.loads(base64.b64decode(json.loads(case.files["statement.dsse.json"])["payload"]))
    others: list[dict[str, Any]] = [
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"predicateType": "https://slsa.dev/provenance/v1"},
        {"subject": [entry for entry in statement["subject"] if entry["name"] != "MANIFEST"]},
        {"subject": [{**entry, "digest": {"sha256": "0" * 64}} for entry in statement["subject"]]},
        {"subject": None},
        {"predicate": []},
    ]
    for more in others:
        found(archive({**case.files, "statement.dsse.json": case.envelope({**statement, **more})}), case.keys)


def test_only_a_key_that_was_given_counts(case: Case, tmp_path: Path) -> None:
    stranger = KeyFiles([tmp_path / "stranger.key"], make=True)
    statement = json.loads(base64.b64decode(json.loads(case.files["statement.dsse.json"])["payload"]))
    forged = archive({**case.files, "statement.dsse.json": case.envelope(statement, stranger)})
    assert "none of the given keys has signed the statement" in found(forged, case.keys)
    origin = case.keys[0].name
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    found(case.data, [Key(origin, b"abcd", other)])


def test_a_trail_made_anew_shows_against_a_checkpoint_from_outside(case: Case, tmp_path: Path) -> None:
    database = Database(case.world.database.engine.url.render_as_string(hide_password=False))
    tampered = case.signed_anew(_json(case.files, "consistency.json", lambda _: []))
    assert "compared with none" in found(tampered, case.keys, case.outside[:1])
    point = case.outside[0].split("\n")
    text = f"{point[0]}\n{point[1]}\n{base64.b64encode(bytes(32)).decode()}\n"
    ((key, signature),) = case.world.signer.sign(point[0], text.encode())
    line = f"\u2014 {key.name} {base64.b64encode(key.identity() + signature).decode()}\n"
    assert "another one than that of the checkpoint" in found(case.data, case.keys, [f"{text}\n{line}"])
    database.close()


def _entry(name: str, **more: Any) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as target:
        entry = zipfile.ZipInfo(name)
        entry.create_system, entry.external_attr = 3, 0o100644 << 16
        for key, value in more.items():
            setattr(entry, key, value)
        target.writestr(entry, b"0" * 100_000)
    return packed.getvalue()


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "a/../b", "a\\b", "C:x", "a//b", "a/", ".x", "x\n", "a/b/c", "\u202etxt", "", "x" * 200],
)
def test_no_name_leads_anywhere(case: Case, name: str) -> None:
    found(_entry(name), case.keys)


def test_hostile_archives_are_refused(case: Case) -> None:
    good = _entry("a.json")
    bomb = _entry("a.json", compress_type=zipfile.ZIP_DEFLATED)
    link = _entry("a.json", external_attr=0o120777 << 16)
    folder = _entry("a.json", external_attr=0o040755 << 16)
    encrypted = bytearray(good)
    for at in (6, good.index(b"PK\x01\x02") + 8):
        encrypted[at] |= 1
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as target, pytest.warns(UserWarning, match="Duplicate"):
        for _ in range(2):
            entry = zipfile.ZipInfo("a.json")
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            target.writestr(entry, b"{}")
    before, behind = b"MZ" + good, good + b"more"
    huge = bytearray(good)
    place = good.index(b"PK\x01\x02")
    huge[place + 20 : place + 28] = struct.pack("<LL", 0xFFFFFFF0, 0xFFFFFFF0)
    for data in (bomb, link, folder, bytes(encrypted), twice.getvalue(), before, behind, bytes(huge), b"", b"PK"):
        found(data, case.keys)
    assert read_pack(good) == {"a.json": b"0" * 100_000}


def test_files_that_are_no_json_or_mean_two_things_are_told_and_not_tripped_over(case: Case) -> None:
    for name in ("leaves.json", "consistency.json", "people.json", "policy.json", "release.json"):
        for data in (b"", b"{", b"[" * 100_000, b'{"a":1,"a":2}', b"null", b"[1]", b'"x"', b"\xff", b"{}", b"[[]]"):
            try:
                check_pack(case.signed_anew({**case.files, name: data}), case.keys, case.outside)
            except Bad:
                continue
            assert name in ("people.json", "consistency.json") and data in (b"null", b"{}", b"[[]]"), (name, data)


def test_the_command_ends_with_what_it_found(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack, anchor = tmp_path / "it.zip", case.world.folder / "checkpoints"
    pack.write_bytes(case.data)
    key = trail.checkpoint(case.world.core)["keys"][0]
    assert headgate_verify.main(["pack", str(pack), "--key", key, "--anchor", str(anchor)]) == 0
    assert "2 people approved just this digest" in capsys.readouterr().out
    pack.write_bytes(case.data[:-40])
    assert headgate_verify.main(["pack", str(pack), "--key", key]) == 1
    assert "DOES NOT HOLD" in capsys.readouterr().err
    assert headgate_verify.main(["pack", str(tmp_path / "none.zip"), "--key", key]) == 2
