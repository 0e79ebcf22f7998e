"""The verifier finds whatever was done to an export, and nothing where nothing was done."""

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from app.domain.audit import leaf_data
from app.domain.merkle import leaf_hash
from app.domain.notes import Checkpoint, PublicKey, signed
from app.verifier.headgate_verify import Bad, check_export, check_proof
from app.verifier.one_file import one_file
from tests.trails import KEYS, ORIGIN, OTHER, SECRET, export, leaves, note, proof, public, tree_of


def check(data: bytes, anchored: list[str] | None = None) -> int:
    return check_export(io.BytesIO(data), KEYS, anchored or [])[0].size


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 30])
def test_a_true_export_holds(count: int) -> None:
    data = leaves(count)
    points = [note(tree_of(data[:size])) for size in (*range(0, count, 3), count)]
    assert check(export(data, points), points) == count


@pytest.mark.parametrize("seed", range(20))
def test_no_single_change_goes_unseen(seed: int) -> None:
    """200 changes each: one byte becomes another, goes, or comes, anywhere in the export."""
    random, data = Random(seed), leaves(12)
    true = export(data, [note(tree_of(data[:5])), note(tree_of(data))])
    outside = [note(tree_of(data))]
    for _ in range(200):
        place, other = random.randrange(len(true)), bytes([random.randrange(256)])
        before, after = true[:place], true[place + 1 :]
        changed = random.choice([before + other + after, before + after, before + other + true[place:]])
        if changed == true:
            continue
        try:
            size = check(changed, outside)
        except Bad:
            continue
        # All that may pass is what says the same: the trail's own bytes must be the true ones.
        assert size == 12 and changed.split(b"\n\n")[-1] == true.split(b"\n\n")[-1], (place, other)


def _delete(data: list[bytes]) -> list[bytes]:
    return [*data[:3], *data[4:]]


def _renumbered(data: list[bytes]) -> list[bytes]:
    found = [json.loads(leaf) for leaf in data]
    return [leaf_data(n, leaf["at"], leaf["kind"], leaf["body"]) for n, leaf in enumerate(found, 1)]


def _delete_and_renumber(data: list[bytes]) -> list[bytes]:
    return _renumbered(_delete(data))


def _insert(data: list[bytes]) -> list[bytes]:
    return _renumbered([*data[:3], leaf_data(4, "now", "approval", {"by": "mallory"}), *data[3:]])


def _reorder(data: list[bytes]) -> list[bytes]:
    return [*data[:3], data[4], data[3], *data[5:]]


def _reorder_and_renumber(data: list[bytes]) -> list[bytes]:
    return _renumbered(_reorder(data))


def _truncate(data: list[bytes]) -> list[bytes]:
    return data[:-1]


def _change(data: list[bytes]) -> list[bytes]:
    return [*data[:3], leaf_data(4, "now", "approval", {"by": "mallory"}), *data[4:]]


ATTACKS = [_delete, _delete_and_renumber, _insert, _reorder, _reorder_and_renumber, _truncate, _change]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_forged_trail_is_found_against_the_true_checkpoint(attack: Any) -> None:
    data = leaves(10)
    with pytest.raises(Bad):
        check(export(attack(data), [note(tree_of(data))]))


@pytest.mark.parametrize("attack", ATTACKS)
def test_one_that_is_signed_anew_is_found_against_an_anchor(attack: Any) -> None:
    """The attacker has the key, too: a fork, a tail signed again, an older state."""
    data = leaves(10)
    with pytest.raises(Bad):
        check(export(attack(data)), [note(tree_of(data[:5])), note(tree_of(data))])


def test_the_first_bad_leaf_is_named(world: None = None) -> None:
    data = leaves(10)
    true = export(data).splitlines(keepends=True)
    place = next(n for n, line in enumerate(true) if b'"by":"p7"' in line)
    true[place] = true[place].replace(b"p7", b"px")
    with pytest.raises(Bad) as found:
        check(b"".join(true))
    assert found.value.leaf == 7
    # Where the hash beside it was made to fit, the checkpoints around it say between which leaves.
    with pytest.raises(Bad) as found:
        check(export(_change(data), [note(tree_of(data[:3])), note(tree_of(data[:6]))]))
    assert found.value.leaf == 4


def test_a_leaf_cannot_pass_for_a_node() -> None:
    """The second-preimage attack on trees without prefixes: two leaves' hashes as one leaf."""
    data = leaves(2)
    node = leaf_hash(data[0]) + leaf_hash(data[1])
    assert hashlib.sha256(b"\x01" + node).digest() == tree_of(data).root()
    assert leaf_hash(node) != tree_of(data).root()


@pytest.mark.parametrize(
    "signing",
    [
        lambda tree: note(tree, OTHER),
        lambda tree: note(tree).replace(ORIGIN, "headgate/other", 1),
        lambda tree: note(tree, origin="headgate/other"),
        lambda tree: note(tree).partition("\n\n")[0] + "\n\n",
        lambda tree: signed(
            Checkpoint(ORIGIN, tree.size, tree.root()),
            [(PublicKey(ORIGIN, KEYS[0].key), OTHER.sign(Checkpoint(ORIGIN, tree.size, tree.root()).text().encode()))],
        ),
    ],
)
def test_a_checkpoint_that_nobody_trusted_has_signed_counts_for_nothing(signing: Any) -> None:
    data = leaves(3)
    with pytest.raises(Bad):
        check(export(data, [signing(tree_of(data))]))


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"\n",
        b"headgate-audit-export/1 headgate/test 0 0",
        b"headgate-audit-export/1 headgate/test 1 0\n" + b"a" * 100 + b"\n",
        b"headgate-audit-export/1 headgate/test 99999999999999999 0\n",
        b"headgate-audit-export/1 headgate/test 1 999999999999999999\n",
        b"headgate-audit-export/1 headgate/test " + b"9" * 5000 + b" 0\n",
        b"headgate-audit-export/1 headgate/test 1 1\n" + b"a\n" * 100_000,
        b"\xff\xfe headgate-audit-export/1\n",
    ],
)
def test_what_is_no_export_is_refused_in_words(hostile: bytes) -> None:
    if hostile.endswith(b" 0 0"):
        assert check(hostile) == 0  # an empty trail without a checkpoint is one
        return
    with pytest.raises(Bad):
        check(hostile)


@pytest.mark.parametrize(
    "leaf",
    [
        b"[" * 200_000,
        b'{"seq":1,"at":"","kind":"","body":{},"seq":1}',
        b'{"seq":1,"at":"","kind":"","body":{"by":"a","by":"b"}}',
        b'{"seq":1,"at":"","kind":"","body":{},"more":1}',
        b'{"seq":true,"at":"","kind":"","body":{}}',
        b'{"seq":1.0,"at":"","kind":"","body":{}}',
        b'{"seq":' + b"1" * 10_000 + b',"at":"","kind":"","body":{}}',
        b"null",
        b'"\\ud800',
    ],
)
def test_a_leaf_that_means_two_things_or_nothing_is_refused(leaf: bytes) -> None:
    with pytest.raises(Bad) as found:
        check(export([leaf], [note(tree_of([leaf]))]) if leaf.isascii() else leaf)
    assert found.value.leaf == 1


def test_a_proof_proves_its_leaf_and_no_other() -> None:
    for size in range(1, 20):
        for seq in range(1, size + 1):
            true = proof(leaves(size), seq)
            assert check_proof(true, KEYS)[0]["seq"] == seq
            for false in (
                {**true, "seq": seq % size + 1 if size > 1 else 2},
                {**true, "leaf": true["leaf"].replace(f"p{seq}", "mallory")},
                {**true, "path": [*true["path"], "AA=="]},
                {**true, "path": true["path"][1:]} if true["path"] else {**true, "path": None},
                {**true, "checkpoint": {"note": note(tree_of(leaves(size + 1)), OTHER)}},
                {**true, "seq": True},
                {},
                None,
            ):
                with pytest.raises(Bad):
                    check_proof(false, KEYS)


def test_it_runs_alone_with_nothing_of_headgate(tmp_path: Path) -> None:
    """Copied away, isolated from this checkout, with exit codes for scripts."""
    script, trail, anchor = tmp_path / "v.pyz", tmp_path / "trail.txt", tmp_path / "checkpoints.txt"
    script.write_bytes(one_file())
    data = leaves(5)
    trail.write_bytes(export(data))
    anchor.write_text(f"{note(tree_of(data[:2]))}\n{note(tree_of(data))}\n")
    command = [sys.executable, "-I", str(script), "export", str(trail), "--key", public(SECRET).text()]
    held = subprocess.run([*command, "--anchor", str(anchor)], capture_output=True, text=True, check=False)
    assert (held.returncode, held.stdout) == (
        0,
        "5 leaves hold; 3 signed checkpoints, 2 of them from outside, cover 5\n",
    )
    alone = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "made anew as a whole would hold" in alone.stdout
    trail.write_bytes(export(_change(data)))
    broken = subprocess.run([*command, "--anchor", str(anchor)], capture_output=True, text=True, check=False)
    assert (broken.returncode, broken.stdout) == (1, "")
    assert "one of the leaves 3 to 5" in broken.stderr
    (tmp_path / "proof.json").write_text(json.dumps({"proof": proof(leaves(5), 3)}))
    proved = subprocess.run(
        [*command[:3], "proof", str(tmp_path / "proof.json"), *command[5:]], capture_output=True, text=True, check=False
    )
    assert proved.returncode == 0 and "leaf 3 of headgate/test" in proved.stdout
    missing = subprocess.run([*command[:4], str(tmp_path / "no"), *command[5:]], capture_output=True, check=False)
    assert missing.returncode == 2
