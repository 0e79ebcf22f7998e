"""Thousands of single changes and every structural attack on an export: all found, at the leaf where it can be told,
and no alarm where nothing was done."""

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from random import Random

import pytest

from app.domain.audit import leaf_data
from app.domain.canonical import canonical
from app.domain.merkle import leaf_hash, node_hash
from app.domain.notes import Checkpoint, signed
from app.verifier.headgate_verify import Bad, check_proof, parse_key
from tests.trails import (
    ANCHORS,
    BEGIN,
    CHANGES,
    KEYS,
    LEAVES,
    ORIGIN,
    OTHER,
    POINTS,
    SECRET,
    SIZE,
    TRUE,
    bad,
    check,
    edited,
    export,
    line,
    note,
    proof,
    public,
    story,
    tree_of,
)


def refitted(leaves: Sequence[bytes]) -> list[bytes]:
    """Numbered from 1 again: who forges a trail sees to what can be seen in each line by itself."""
    told = [json.loads(leaf) for leaf in leaves]
    return [leaf_data(n, leaf["at"], leaf["kind"], leaf["body"]) for n, leaf in enumerate(told, 1)]


# No false alarm.


@pytest.mark.parametrize("seed", range(10))
def test_what_was_not_touched_holds_whatever_its_size(seed: int) -> None:
    random = Random(seed)
    for size in (*range(seed * 8, seed * 8 + 8), random.randrange(200, 400)):
        leaves = story(size)
        points = [note(tree_of(leaves[:end])) for end in (*random.choices(range(size + 1), k=5), size)]
        outside = random.sample(points, k=3)
        random.shuffle(points)  # in whatever order they were kept
        assert check(export(leaves, points), outside)[:2] == (size, tree_of(leaves).root())


# Single changes.


@pytest.mark.parametrize("change", CHANGES)
def test_a_thousand_single_changes_each(change: Callable[[Random, bytes, int], bytes]) -> None:
    random, same = Random(change.__name__), check(TRUE, ANCHORS)
    for _ in range(1000):
        place = random.randrange(len(TRUE))
        changed = change(random, TRUE, place)
        if changed == TRUE:
            continue
        if place >= BEGIN:
            # Where a line's end is concerned, it may be the next one that does not hold.
            number = TRUE.count(b"\n", BEGIN, place) + 1
            assert bad(changed) in (number, number + 1), (place, changed[place : place + 3])
            continue
        try:
            told = check(changed, ANCHORS)
        except Bad:
            continue
        assert told == same, "what stands before the leaves may be written otherwise only where it says the same"


def test_two_thousand_values_that_were_edited_with_the_hash_made_to_fit() -> None:
    """The line is what it should be by itself: only the tree tells, and the checkpoints around it say where."""
    random = Random(3)
    for _ in range(2000):
        place = random.randrange(SIZE)
        leaf = json.loads(LEAVES[place])
        forged = canonical({**leaf, "body": edited(random, leaf["body"])})
        assert forged != LEAVES[place]
        named = bad(export([*LEAVES[:place], forged, *LEAVES[place + 1 :]], ANCHORS))
        assert named == max(size for size in (0, *POINTS) if size <= place) + 1


def test_hashes_that_were_edited_are_found_at_their_leaf() -> None:
    random = Random(4)
    for _ in range(500):
        place, digit = random.randrange(SIZE), random.randrange(64)
        true = leaf_hash(LEAVES[place]).hex()
        false = true[:digit] + random.choice("0123456789abcdefABCDEFg ".replace(true[digit], "")) + true[digit + 1 :]
        forged = map(line, LEAVES[:place]), [line(LEAVES[place], false)], map(line, LEAVES[place + 1 :])
        assert bad(TRUE[:BEGIN] + b"".join(part for lines in forged for part in lines)) == place + 1


# What a trail looks like that was taken apart and put together otherwise.


def deleted() -> Iterator[list[bytes]]:
    yield from ([*LEAVES[:n], *LEAVES[n + 1 :]] for n in range(SIZE))


def several_deleted() -> Iterator[list[bytes]]:
    yield from ([*LEAVES[:n], *LEAVES[n + 3 :]] for n in range(SIZE - 3))


def inserted() -> Iterator[list[bytes]]:
    yield from ([*LEAVES[:n], story(1, n + 1, "mallory")[0], *LEAVES[n:]] for n in range(SIZE + 1))


def doubled() -> Iterator[list[bytes]]:
    yield from ([*LEAVES[: n + 1], *LEAVES[n:]] for n in range(SIZE))


def reordered() -> Iterator[list[bytes]]:
    for one in range(SIZE):
        for two in range(one + 1, SIZE):
            yield [*LEAVES[:one], LEAVES[two], *LEAVES[one + 1 : two], LEAVES[one], *LEAVES[two + 1 :]]


def truncated() -> Iterator[list[bytes]]:
    yield from (LEAVES[:n] for n in range(SIZE))


def forked() -> Iterator[list[bytes]]:
    """Another history after some leaf, as long, shorter and longer."""
    for n in range(SIZE):
        yield from ([*LEAVES[:n], *story(count, n + 1, "mallory")] for count in (SIZE - n, 1, SIZE))


def replaced() -> Iterator[list[bytes]]:
    yield from ([*LEAVES[:n], story(1, n + 1, "mallory")[0], *LEAVES[n + 1 :]] for n in range(SIZE))


ATTACKS = (deleted, several_deleted, inserted, doubled, reordered, truncated, forked, replaced)


def first_difference(leaves: Sequence[bytes]) -> int:
    """The number of the first leaf that is not the true one."""
    same = (n for n, (one, other) in enumerate(zip(leaves, LEAVES, strict=False), 1) if one != other)
    return next(same, min(len(leaves), SIZE) + 1)


def check_place(named: int | None, leaves: Sequence[bytes]) -> None:
    """The place that was named is behind the last checkpoint that agrees, and where the next one is there to compare
    with not behind the first leaf that is not the true one; else it is the first leaf that the checkpoint has more."""
    place = first_difference(leaves)
    known = max(size for size in (0, *POINTS) if size < place)
    compared = any(place <= size <= len(leaves) for size in POINTS)
    assert named is not None and known < named <= (place if compared else max(place, len(leaves) + 1))


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_without_the_key_is_found_wherever_it_is(attack: Callable[[], Iterator[list[bytes]]]) -> None:
    """The checkpoints are the true ones; the lines are left as they were, and then made to fit."""
    for forged in attack():
        assert bad(export(forged, ANCHORS)) is not None
        fitting = refitted(forged)
        check_place(bad(export(fitting, ANCHORS)), fitting)


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_with_the_stolen_key_is_found_against_an_anchor(attack: Callable[[], Iterator[list[bytes]]]) -> None:
    """Every checkpoint in the export is made anew and properly signed; one from outside is enough, and with more of
    them the place is known better."""
    for forged in map(refitted, attack()):
        if forged[:SIZE] == LEAVES:
            continue  # nothing but more leaves behind the last anchor
        anew = [note(tree_of(forged[:size])) for size in (*POINTS, len(forged)) if size <= len(forged)]
        assert check(export(forged, anew))[0] == len(forged), (
            "without the anchor it holds: that is what an anchor is for"
        )
        assert bad(export(forged, anew), ANCHORS[-1:]) is not None
        check_place(bad(export(forged, anew), ANCHORS), forged)


def test_leaves_that_nobody_has_signed_are_none() -> None:
    """Behind the newest checkpoint anybody could write what he likes."""
    for size in range(SIZE):
        assert bad(export(LEAVES, [note(tree_of(LEAVES[:size]))])) == size + 1
    assert bad(export(LEAVES, [])) == 1


def test_a_tail_that_was_signed_again_is_found_by_each_anchor_that_has_some_of_it_and_by_no_other() -> None:
    for begin in range(SIZE):
        forged = [*LEAVES[:begin], *story(SIZE - begin, begin + 1, "mallory")]
        anew = export(forged, [note(tree_of(forged))])
        for size, anchor in zip(POINTS, ANCHORS, strict=True):
            if size > begin:
                assert bad(anew, [anchor]) is not None
            else:
                assert check(anew, [anchor])[0] == SIZE  # as docs/audit.md says: nothing inside can tell


def test_of_two_histories_at_most_one_holds() -> None:
    """Who shows one trail to one auditor and another to another is found as soon as they compare checkpoints."""
    for begin in range(SIZE):
        other = [*LEAVES[:begin], *story(SIZE - begin, begin + 1, "mallory")]
        both = [note(tree_of(LEAVES)), note(tree_of(other))]
        for history in (LEAVES, other):
            assert bad(export(history, [note(tree_of(history))]), both) == 1
            assert check(export(history), [note(tree_of(LEAVES[:begin]))])[0] == SIZE


def test_an_older_database_is_found_at_the_first_leaf_that_it_lacks() -> None:
    for size in range(SIZE):
        older = export(LEAVES[:size], [note(tree_of(LEAVES[:size]))])
        assert check(older)[0] == size
        assert bad(older, ANCHORS[-1:]) == size + 1


# Leaves and nodes.


def test_no_node_passes_for_a_leaf() -> None:
    for size in range(2, 34):
        leaves = story(size)
        left, right = leaf_hash(leaves[0]), leaf_hash(leaves[1])
        for prefix in (b"", b"\x00", b"\x01"):
            inner = prefix + left + right
            assert leaf_hash(inner) != node_hash(left, right)
            named = proof(leaves, 1)
            for text in (inner.decode("latin-1"), inner.decode("utf-8", "surrogateescape")):
                for path in (named["path"], named["path"][1:]):
                    with pytest.raises(Bad):
                        check_proof({**named, "leaf": text, "path": path}, KEYS)
        # The second half of a tree of two is one hash: it proves no leaf by itself.
        forged = line(left + right, node_hash(left, right).hex())
        assert bad(export([], [note(tree_of(leaves))]).replace(b" 0 1\n", b" 1 1\n", 1) + forged) == 1


def test_a_last_leaf_that_stands_twice_is_another_tree() -> None:
    """Trees that double an odd leaf have one root for both."""
    for size in range(1, 34):
        leaves = story(size)
        assert tree_of([*leaves, leaves[-1]]).root() != tree_of(leaves).root()


# Checkpoints and keys.


def test_checkpoints_that_were_exchanged_with_each_other_are_found() -> None:
    bodies = [text.partition("\n\n") for text in ANCHORS]
    for one, (body, gap, _) in enumerate(bodies):
        for two, (other, _, signatures) in enumerate(bodies):
            if one != two:
                assert bad(export(LEAVES, [body + gap + signatures])) is None
                size, root = body.split("\n")[1], other.split("\n")[2]
                assert bad(export(LEAVES, [f"{ORIGIN}\n{size}\n{root}{gap}{signatures}"])) is None


@pytest.mark.parametrize("inside", [True, False])
def test_a_checkpoint_of_another_trail_is_refused_though_its_key_is_trusted(inside: bool) -> None:
    other = note(tree_of(LEAVES), origin="headgate/other")
    forged, anchors = (export(LEAVES, [other]), []) if inside else (TRUE, [other])
    with pytest.raises(Bad, match="of the trail"):
        check(forged, anchors)


def test_no_other_key_signs_under_the_names_of_a_trusted_one() -> None:
    point, true = Checkpoint(ORIGIN, SIZE, tree_of(LEAVES).root()), public(SECRET)
    text = point.text().encode()
    forged = OTHER.sign(text)
    raw = [base64.b64encode(true.identity() + forged), base64.b64encode(public(OTHER).identity() + forged)]
    for signature in (each.decode() for each in raw):
        assert bad(export(LEAVES, [f"{point.text()}\n\u2014 {ORIGIN} {signature}\n"])) is None
    # A signature of somebody else beside the true one neither helps nor harms.
    beside = signed(point, [(true, SECRET.sign(text)), (public(OTHER, "witness"), OTHER.sign(text))])
    assert check(export(LEAVES, [beside]))[0] == SIZE
    # Nor can a key be given out under the identity of another.
    name, identity, _ = true.text().split("+")
    for key in (f"{name}+{identity}+{public(OTHER).text().split('+')[2]}", f"{name}+00000000+{true.text()[-44:]}", ""):
        with pytest.raises(Bad):
            parse_key(key)
