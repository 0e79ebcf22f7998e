"""What is read may be anything: other bytes for the same thing, hostile files, strange proofs. It ends in words."""

import io
import json
from random import Random
from typing import Any

import pytest

from app.verifier.headgate_verify import Bad, check_proof, notes
from tests.trails import (
    ANCHORS,
    BEGIN,
    CHANGES,
    KEYS,
    LEAVES,
    SIZE,
    TRUE,
    bad,
    check,
    export,
    line,
    note,
    proof,
    tree_of,
)

# The same in other words.


@pytest.mark.parametrize(
    ("true", "other"),
    [
        (b'"seq":3', b'"seq":3.0'),
        (b'"seq":3', b'"seq":3e0'),
        (b'"seq":3', b'"seq":"3"'),
        (b'"seq":3', b'"seq":+3'),
        (b'"seq":3', b'"seq":03'),
        (b'"seq":3', b'"seq":-3'),
        (b'"seq":3', b'"seq":3,"seq":3'),
        (b'"seq":3', b'"seq":3,"SEQ":3'),
        (b'"p99":3.125', b'"p99":3125e-3'),
        (b'"p99":3.125', b'"p99":3.1250'),
        (b'"promotion":1', b'"promotion":1.0'),
        (b'"promotion":1', b'"promotion":true'),
        (b'"promotion":1', b'"promotion":1,"promotion":1'),
        (b'"promotion":1', b'"promotion":2,"promotion":1'),
        (b'"by":"rita-3"', b'"by":"rit\\u0061-3"'),
        (b'"by":"rita-3"', b'"by": "rita-3"'),
        (b'"by":"rita-3"', b'"by":"rita\xe2\x80\x8b-3"'),
        (b'"by":"rita-3"', b'"by":"mallory","by":"rita-3"'),
        ("é".encode(), "e\u0301".encode()),
        ("è".encode(), b"\\u00e8"),
        (b"prix", b"pr\xc0\xafx"),
        (b"prix", b"pr\xed\xa0\x80x"),
        (b"prix", b"pr\x00x"),
        (b'"seq":3}', b'"seq":3}\r'),
        (b'"seq":3}', b'"seq":3} '),
        (b'{"at"', b'\xef\xbb\xbf{"at"'),
    ],
)
def test_a_leaf_that_says_the_same_in_other_bytes_is_another_leaf(true: bytes, other: bytes) -> None:
    whole = LEAVES[2].replace("Genève".encode(), "Genévè".encode()) if not true.isascii() else LEAVES[2]
    assert true in whole
    forged = whole.replace(true, other, 1)
    leaves = [*LEAVES[:2], whole, *LEAVES[3:]]
    points = [note(tree_of(leaves[:size])) for size in (2, 3, SIZE)]
    assert check(export(leaves, points))[0] == SIZE
    assert bad(export([*leaves[:2], forged, *leaves[3:]], points)) == 3


@pytest.mark.parametrize(
    "hostile",
    [
        TRUE.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + TRUE,
        TRUE.decode().encode("utf-16"),
        TRUE[:BEGIN].replace(b"\n", b"\r\n") + TRUE[BEGIN:],
        TRUE + b"\n",
        TRUE + TRUE,
        TRUE[:-1],
        TRUE[:BEGIN] + line(b"[" * 100_000 + b"]" * 100_000),
        TRUE[:BEGIN] + line(b'{"at":"","body":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b',"kind":"","seq":1}'),
        TRUE[:BEGIN] + line(b'{"at":"","body":"' + b"a" * (17 << 20) + b'","kind":"","seq":1}'),
        TRUE[:BEGIN] + b"\x00" * 1_000_000,
        TRUE[:20] + b"9" * (17 << 20),
        TRUE[:BEGIN] + b"\xff" * 64 + b" \xff\n",
        b"\x1f\x8b\x08\x00" + TRUE,
        b"PK\x03\x04" + TRUE,
    ],
    ids=range(15),
)
def test_what_is_hostile_ends_in_words(hostile: bytes) -> None:
    bad(hostile, ANCHORS)


# Whatever is read, what it ends in is `Bad`.


@pytest.mark.parametrize("seed", range(4))
def test_many_changes_at_once_never_break_the_verifier(seed: int) -> None:
    random = Random(seed)
    for _ in range(250):
        data = TRUE
        for _ in range(random.randrange(2, 12)):
            if random.random() < 0.3:
                one, two = sorted(random.choices(range(len(data)), k=2))
                data = random.choice([data[:one] + data[two:], data[two:] + data[:one], data[:two] + data[one:]])
            data = random.choice(CHANGES)(random, data or b"\n", random.randrange(max(1, len(data))))
        try:
            anchors = list(notes(io.StringIO(data[:BEGIN].decode(errors="replace"))))
        except Bad:
            anchors = ANCHORS
        try:
            told = check(data, random.choice([anchors, ANCHORS]))
        except Bad:
            continue
        assert told[:2] == (SIZE, tree_of(LEAVES).root())


ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    2**70,
    1.5,
    "",
    "\ud800",
    "\u2014",
    "AA==",
    "a" * 1000,
    [],
    [[]],
    {},
    {"note": None},
    ["AAAA"],
]


def strange(random: Random, value: Any) -> Any:
    """A JSON value with something in it that nobody would expect there."""
    if isinstance(value, dict) and random.random() < 0.9:
        key = random.choice(list(value))
        return {**value, key: strange(random, value[key])}
    if isinstance(value, list) and value and random.random() < 0.7:
        place = random.randrange(len(value))
        return [*value[:place], strange(random, value[place]), *value[place + 1 :]]
    if isinstance(value, str) and value and random.random() < 0.7:
        place = random.randrange(len(value))
        return value[:place] + random.choice(["", "\ud800", "\n", "=", "é", value[place] * 2]) + value[place + 1 :]
    return random.choice(ODD)


def test_two_thousand_strange_proofs_prove_nothing_else() -> None:
    random, proofs = Random(5), [(seq, proof(LEAVES, seq)) for seq in (1, 8, SIZE)]
    for _ in range(2000):
        seq, true = random.choice(proofs)
        try:
            leaf, point = check_proof(strange(random, true), KEYS)
        except Bad:
            continue
        assert (leaf, point.size) == (json.loads(LEAVES[seq - 1]), SIZE)
