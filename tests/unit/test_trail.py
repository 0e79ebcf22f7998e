"""The audit trail: what is proved, given away and found, with nothing but the verifier that stands alone."""

import base64
import copy
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update

from app.adapters.audit_keys import KeyFiles
from app.db import audit
from app.db.models import AuditHead, AuditLeaf, AuditNode
from app.db.session import Database
from app.domain.errors import Fault, NotFound
from app.domain.permissions import Caller
from app.services import approvals, outbox, trail
from app.verifier.headgate_verify import Bad, check_export, check_proof, kept, parse_key
from tests.plant import MODEL, World
from tests.rfc6962 import defined, defined_path, defined_proof


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


def exported(world: World) -> bytes:
    return "".join(trail.export(world.core)).encode()


def keys(world: World) -> list[Any]:
    return [parse_key(text) for text in trail.checkpoint(world.core)["keys"]]


def append(world: World, count: int) -> None:
    with world.database.begin() as session:
        for number in range(count):
            audit.append(session, "test", {"number": number})


def test_an_approval_is_proved_by_its_answer(world: World) -> None:
    # Given a promotion that waits, when a reviewer approves the digest that she saw,
    number = world.ask("1")
    shown = world.run(number)
    seq = approvals.decide(world.core, number, Caller("rita", "reviewer"), "approve", shown["digest"], "looks good")
    proof = trail.proof(world.core, seq)
    # then the proof needs nothing but the public key: who, what, and that it is in the trail.
    leaf, point = check_proof(json.loads(json.dumps(proof)), keys(world))
    opened = {opening["token"]: opening["value"] for opening in proof["openings"]}
    said = (leaf["kind"], opened[leaf["body"]["by"]], opened[leaf["body"]["reason"]], leaf["body"]["digest"])
    assert said == ("approval", "rita", "looks good", shown["digest"])
    assert point.size >= seq
    # and an older trail is the beginning of what it has become since.
    world.run(number)
    grown = trail.consistency(world.core, point.size)
    assert grown["old"] == point.size and grown["checkpoint"]["leaves"] > point.size


def test_every_leaf_can_be_proved(world: World) -> None:
    append(world, 70)
    size = trail.checkpoint(world.core)["leaves"]
    for seq in range(1, size + 1):
        leaf, point = check_proof(trail.proof(world.core, seq), keys(world))
        assert (leaf["seq"], point.size) == (seq, size)


def test_a_leaf_that_is_not_there_cannot(world: World) -> None:
    size = trail.checkpoint(world.core)["leaves"]
    with pytest.raises(NotFound):
        trail.proof(world.core, size + 1)
    with pytest.raises(NotFound):
        trail.consistency(world.core, size + 1)


def test_no_proof_is_given_of_a_leaf_that_was_changed(world: World) -> None:
    append(world, 9)
    with world.database.begin() as session:
        session.execute(update(AuditLeaf).where(AuditLeaf.seq == 4).values(body={"number": -1}))
    with pytest.raises(Fault, match="does not lead to its root"):
        trail.proof(world.core, 4)


def test_what_the_database_gives_is_what_the_rfc_defines(world: World) -> None:
    append(world, 37)
    data = [line.partition(" ")[2].encode() for line in exported(world).decode().splitlines() if line[64:66] == " {"]
    size = trail.checkpoint(world.core)["leaves"]
    assert len(data) == size and trail.checkpoint(world.core)["root"] == defined(data).hex()
    for seq in range(1, size + 1):
        told = [base64.b64decode(step) for step in trail.proof(world.core, seq)["path"]]
        assert told == defined_path(seq - 1, data)
        told = [base64.b64decode(step) for step in trail.consistency(world.core, seq)["path"]]
        assert told == defined_proof(seq, data)


def test_no_proof_is_given_where_a_node_is_missing(world: World) -> None:
    append(world, 9)
    with world.database.begin() as session:
        session.execute(delete(AuditNode))
    with pytest.raises(Fault, match="lacks the node"):
        trail.proof(world.core, 1)


def test_a_trail_that_was_cut_off_is_found_against_its_head(world: World) -> None:
    append(world, 9)
    with world.database.begin() as session:
        last = trail.checkpoint(world.core)["leaves"]
        session.execute(delete(AuditLeaf).where(AuditLeaf.seq == last))
    verdict = trail.verify(world.database)
    assert (verdict.verified, verdict.first_bad) == (False, last)


def test_a_checkpoint_is_given_away_once_and_kept_outside_and_in_mlflow(world: World) -> None:
    world.run(world.ask("1"))
    assert trail.give_away(world.core, world.anchor)
    assert not trail.give_away(world.core, world.anchor)  # nothing new, nothing written twice
    (note,) = kept(world.folder / "checkpoints")
    outbox.deliver(world.core, "worker-1")
    assert world.registry.model_tags[MODEL]["headgate.checkpoint"] == note
    append(world, 1)
    assert trail.give_away(world.core, world.anchor)
    assert len(kept(world.folder / "checkpoints")) == 2
    tree, points = check_export(io.BytesIO(exported(world)), keys(world), kept(world.folder / "checkpoints"))
    assert [point.size for point in points][-1] == tree.size


def test_a_note_that_was_not_kept_is_kept_by_the_next_one(world: World) -> None:
    class Full:
        def keep(self, note: str) -> None:
            raise Fault("the disk is full", "make room")

    with pytest.raises(Fault):
        trail.give_away(world.core, Full())
    assert not trail.give_away(world.core, world.anchor)
    assert len(kept(world.folder / "checkpoints")) == 1


def test_keys_are_exchanged_under_both_and_the_trail_says_when(world: World, tmp_path: Path) -> None:
    old = keys(world)
    trail.give_away(world.core, world.anchor)
    # Given a second key, while both sign,
    fresh = KeyFiles([tmp_path / "fresh.key"], make=True)
    fresh.keys("made")
    object.__setattr__(world.core, "signer", KeyFiles([tmp_path / "fresh.key", tmp_path / "audit.key"]))
    assert trail.give_away(world.core, world.anchor)
    # then who trusts only the old one still follows, and so does who trusts only the new one from then on.
    export = exported(world)
    check_export(io.BytesIO(export), old)
    both = keys(world)
    assert both[1] == old[0]
    note = trail.checkpoint(world.core)["note"]
    assert note.count("\u2014 ") == 2
    said = [leaf for leaf in trail.page(world.database, 0, 1000) if leaf["kind"] == "trail.keys"]
    assert [len(leaf["body"]["keys"]) for leaf in said] == [1, 2]


def test_an_older_database_is_found_against_the_anchor(world: World) -> None:
    append(world, 20)
    before = exported(world)
    append(world, 5)
    trail.give_away(world.core, world.anchor)
    outside = kept(world.folder / "checkpoints")
    with pytest.raises(Bad, match="the export only"):
        check_export(io.BytesIO(before), keys(world), outside)


def test_a_trail_made_anew_as_a_whole_is_found_against_the_anchor(world: World) -> None:
    """Whoever has the database and the key can sign anything: only what was kept elsewhere tells."""
    append(world, 20)
    trail.give_away(world.core, world.anchor)
    outside = kept(world.folder / "checkpoints")
    with world.database.begin() as session:
        leaves = [(leaf.kind, copy.copy(dict(leaf.body))) for leaf in audit.leaves(session)]
        session.execute(delete(AuditLeaf))
        session.execute(delete(AuditNode))
        session.execute(update(AuditHead).values(size=0, peaks=[]))
    leaves[7][1]["number"] = 1000
    with world.database.begin() as session:
        for kind, body in leaves:
            audit.append(session, kind, body)
    forged = exported(world)
    with pytest.raises(Bad) as found:
        check_export(io.BytesIO(forged), keys(world), outside)
    assert found.value.leaf is not None and found.value.leaf <= 8
    assert trail.verify(world.database).verified  # from inside, nothing can be seen


def test_many_who_start_at_once_sign_with_one_key(tmp_path: Path) -> None:
    """Containers that share a folder may even have the same process id."""
    for number in range(20):
        file, barrier = tmp_path / f"{number}.key", threading.Barrier(8)

        def start(file: Path = file, barrier: threading.Barrier = barrier) -> str:
            barrier.wait()
            return KeyFiles([file], make=True).keys("trail")[0].text()

        with ThreadPoolExecutor(8) as pool:
            seen = {future.result() for future in [pool.submit(start) for _ in range(8)]}
        assert seen == {KeyFiles([file]).keys("trail")[0].text()}
    assert {file.suffix for file in tmp_path.iterdir()} == {".key"}
