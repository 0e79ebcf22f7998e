"""Hundreds of changes to the rows of the trail in the database: all found, by the service or against the anchor."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import Table, delete, insert, select

from app.db import audit
from app.db.columns import table
from app.db.models import AuditCheckpoint, AuditHead, AuditLeaf, AuditNode
from app.db.session import Database
from app.domain.audit import leaf_data
from app.domain.errors import Fault
from app.domain.merkle import leaf_hash
from app.services import trail
from app.verifier.headgate_verify import Bad, check_export, check_proof, kept, parse_key
from tests.plant import World
from tests.trails import edited

Row = dict[str, Any]
Change = Callable[[Random, list[Row]], list[Row]]
CHANGES = 30


class Rows:
    """The trail of a world, some of whose checkpoints are kept outside, and what can be done to its tables."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.ask("1")
        for _ in range(3):
            with world.database.begin() as session:
                for number in range(9):
                    audit.append(session, "test", {"number": number, "said": "ça va", "list": [1, {"a": None}]})
            trail.give_away(world.core, world.anchor)
        self.outside = kept(world.folder / "checkpoints")
        self.keys = [parse_key(text) for text in trail.checkpoint(world.core)["keys"]]
        self.true = {name: self.read(name) for name in map(table, (AuditLeaf, AuditNode, AuditHead, AuditCheckpoint))}
        self.size = len(self.true[table(AuditLeaf)])

    def read(self, name: Table) -> list[Row]:
        with self.world.database.read() as session:
            order = name.primary_key.columns.values()
            return [row._asdict() for row in session.execute(select(name).order_by(*order))]

    def write(self, name: Table, rows: Sequence[Row]) -> None:
        with self.world.database.begin() as session:
            session.execute(delete(name))
            if rows:
                session.execute(insert(name), list(rows))

    def restore(self) -> None:
        for name, rows in self.true.items():
            self.write(name, rows)

    def holds_inside(self) -> bool:
        return trail.verify(self.world.database).verified

    def holds_outside(self) -> bool:
        try:
            check_export(io.BytesIO("".join(trail.export(self.world.core)).encode()), self.keys, self.outside)
        except Bad:
            return False
        return True


@pytest.fixture
def rows(database: Database, tmp_path: Path) -> Rows:
    made = Rows(World(database, tmp_path))
    assert made.holds_inside() and made.holds_outside()
    return made


def one(random: Random, rows: list[Row], **change: Callable[[Any], Any]) -> list[Row]:
    """One row, changed."""
    place = random.randrange(len(rows))
    changed = {name: act(rows[place][name]) for name, act in change.items()}
    return [*rows[:place], {**rows[place], **changed}, *rows[place + 1 :]]


def digit(random: Random, text: str) -> str:
    place = random.randrange(len(text))
    return text[:place] + random.choice("0123456789abcdef".replace(text[place], "")) + text[place + 1 :]


def flipped(random: Random, data: bytes) -> bytes:
    place = random.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << random.randrange(8)]) + data[place + 1 :]


def fitted(row: Row) -> Row:
    """With the hash that goes with what it says."""
    return {**row, "hash": leaf_hash(leaf_data(row["seq"], row["at"], row["kind"], row["body"])).hex()}


def other_body(random: Random, value: Row) -> Row:
    return {**value, "more": 1} if (found := edited(random, value)) == value or not isinstance(found, dict) else found


def fitting(random: Random, rows: list[Row]) -> list[Row]:
    return list(map(fitted, one(random, rows, body=lambda body: other_body(random, body))))


def gone(random: Random, rows: list[Row]) -> list[Row]:
    place = random.randrange(len(rows))
    return [*rows[:place], *rows[place + 1 :]]


def gone_and_numbered(random: Random, rows: list[Row]) -> list[Row]:
    return [fitted({**row, "seq": number}) for number, row in enumerate(gone(random, rows), 1)]


def exchanged(random: Random, rows: list[Row]) -> list[Row]:
    one, two = random.sample(range(len(rows)), k=2)
    swapped = dict(enumerate(rows)) | {one: rows[two], two: rows[one]}
    return [fitted({**swapped[place], "seq": place + 1}) for place in range(len(rows))]


def more(random: Random, rows: list[Row]) -> list[Row]:
    return [*rows, fitted({**random.choice(rows), "seq": len(rows) + 1})]


LEAVES: dict[str, Change] = {
    "at": lambda random, rows: one(random, rows, at=lambda at: at.replace("0", "1", 1)),
    "kind": lambda random, rows: one(random, rows, kind=lambda kind: kind + "s"),
    "body": lambda random, rows: one(random, rows, body=lambda body: other_body(random, body)),
    "hash": lambda random, rows: one(random, rows, hash=lambda text: digit(random, text)),
    "seq": lambda random, rows: one(random, rows, seq=lambda seq: seq + 1000),
    "body and hash": fitting,
    "gone": gone,
    "gone and numbered": gone_and_numbered,
    "exchanged": exchanged,
    "more": more,
}
NODES: dict[str, Change] = {
    "hash": lambda random, rows: one(random, rows, hash=lambda data: flipped(random, data)),
    "position": lambda random, rows: one(random, rows, position=lambda place: place + 1000),
    "gone": gone,
    "more": lambda random, rows: [*rows, {"level": random.randrange(1, 9), "position": 999, "hash": bytes(32)}],
}
HEADS: dict[str, Change] = {
    "size": lambda random, rows: one(random, rows, size=lambda size: size + random.choice((-1, 1, 100))),
    "peaks": lambda random, rows: one(random, rows, peaks=lambda peaks: [*peaks[:-1], digit(random, peaks[-1])]),
    "fewer peaks": lambda random, rows: one(random, rows, peaks=lambda peaks: peaks[:-1]),
}


def check_inside(rows: Rows, name: Table, change: Change, seed: str) -> None:
    """Each of many such changes is found by the service itself, whatever the database says of itself."""
    random = Random(seed)
    for _ in range(CHANGES):
        changed = change(random, rows.true[name])
        assert changed != rows.true[name]
        rows.write(name, changed)
        assert not rows.holds_inside(), changed
    rows.restore()
    assert rows.holds_inside() and rows.holds_outside()


@pytest.mark.parametrize("change", LEAVES)
def test_changed_leaves_are_found(rows: Rows, change: str) -> None:
    check_inside(rows, table(AuditLeaf), LEAVES[change], change)


@pytest.mark.parametrize("change", NODES)
def test_changed_nodes_are_found(rows: Rows, change: str) -> None:
    check_inside(rows, table(AuditNode), NODES[change], change)


@pytest.mark.parametrize("change", HEADS)
def test_a_changed_head_is_found(rows: Rows, change: str) -> None:
    check_inside(rows, table(AuditHead), HEADS[change], change)


def test_the_leaf_is_named_where_its_hash_was_made_to_fit(rows: Rows) -> None:
    """The kept nodes say where: every leaf but an odd last one has one above it."""
    true, name = rows.true[table(AuditLeaf)], table(AuditLeaf)
    for place in range(rows.size - rows.size % 2):
        forged = fitted({**true[place], "kind": "forged"})
        rows.write(name, [*true[:place], forged, *true[place + 1 :]])
        assert trail.verify(rows.world.database).first_bad in (place, place + 1)


def test_no_proof_is_given_that_a_changed_node_would_make_false(rows: Rows) -> None:
    random, name, refused = Random(7), table(AuditNode), 0
    for _ in range(5):
        rows.write(name, one(random, rows.true[name], hash=lambda data: flipped(random, data)))
        for seq in range(1, rows.size + 1):
            try:
                proof = trail.proof(rows.world.core, seq)
            except Fault:
                refused += 1
            else:
                assert check_proof(proof, rows.keys)[0]["seq"] == seq
    assert refused


def test_changed_checkpoints_are_found_by_whoever_gets_an_export(rows: Rows) -> None:
    random, name = Random(8), table(AuditCheckpoint)
    for _ in range(CHANGES):
        place = random.randrange(len(rows.true[name]) - 1)
        row = rows.true[name][place]
        root = row["note"].split("\n")[2]
        rows.true[name][place] = {**row, "note": row["note"].replace(root, digit(random, root[:-2]) + root[-2:], 1)}
        rows.write(name, rows.true[name])
        rows.true[name][place] = row
        assert not rows.holds_outside()


def test_a_database_that_was_written_anew_from_some_leaf_on_is_found_against_the_anchor(rows: Rows) -> None:
    """Leaves, nodes and head all fit each other, and the key signs: from inside all is well."""
    leaves = rows.true[table(AuditLeaf)]
    for place in range(0, rows.size, 4):
        forge(rows, [*leaves[:place], {**leaves[place], "body": {"by": "mallory"}}, *leaves[place + 1 :]])
        assert rows.holds_inside() and not rows.holds_outside()
    for size in range(0, rows.size, 4):
        forge(rows, leaves[:size])
        assert rows.holds_inside() and not rows.holds_outside()
    forge(rows, leaves)
    assert rows.holds_inside()


def forge(rows: Rows, leaves: Sequence[Row]) -> None:
    """Write the whole trail anew, by the service's own means."""
    for name in (AuditLeaf, AuditNode, AuditCheckpoint):
        rows.write(table(name), [])
    head = rows.true[table(AuditHead)][0]
    rows.write(table(AuditHead), [{**head, "size": 0, "peaks": []}])
    with rows.world.database.begin() as session:
        for leaf in leaves:
            audit.append(session, leaf["kind"], json.loads(json.dumps(leaf["body"])))
