"""Trails made by hand, signed and exported, for those who check or forge them."""

import base64
import io
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.domain.audit import leaf_data
from app.domain.merkle import Frontier, inclusion_path, joined, leaf_hash
from app.domain.notes import Checkpoint, PublicKey, signed
from app.verifier.headgate_verify import Bad, check_export, parse_key

ORIGIN = "headgate/test"
SECRET, OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32)), Ed25519PrivateKey.from_private_bytes(bytes([1] * 32))


def public(secret: Ed25519PrivateKey, name: str = ORIGIN) -> PublicKey:
    return PublicKey(name, secret.public_key().public_bytes_raw())


KEYS = [parse_key(public(SECRET).text())]


def note(tree: Frontier, secret: Ed25519PrivateKey = SECRET, origin: str = ORIGIN) -> str:
    point = Checkpoint(origin, tree.size, tree.root())
    return signed(point, [(public(secret), secret.sign(point.text().encode()))])


def leaves(count: int) -> list[bytes]:
    return [
        leaf_data(n, f"2026-01-01T00:00:{n:02}+00:00", "test", {"by": f"p{n}", "n": n}) for n in range(1, count + 1)
    ]


def tree_of(data: Sequence[bytes]) -> Frontier:
    tree = Frontier()
    for leaf in data:
        tree.add(leaf_hash(leaf))
    return tree


def line(leaf: bytes, digest: str | None = None) -> bytes:
    """A leaf as an export has it."""
    return f"{leaf_hash(leaf).hex() if digest is None else digest} ".encode() + leaf + b"\n"


def export(data: Sequence[bytes], notes: Sequence[str] | None = None) -> bytes:
    notes = [note(tree_of(data))] if notes is None else notes
    first = f"headgate-audit-export/1 {ORIGIN} {len(data)} {len(notes)}\n"
    return (first + "".join(f"{text}\n" for text in notes)).encode() + b"".join(map(line, data))


def proof(data: Sequence[bytes], seq: int) -> dict[str, Any]:
    """That leaf `seq` is in the trail of these leaves."""
    kept, tree = {}, Frontier()
    for number, leaf in enumerate(data):
        kept[(0, number)] = leaf_hash(leaf)
        kept |= tree.add(kept[(0, number)])
    path = [joined(subtrees, kept.__getitem__) for subtrees in inclusion_path(seq - 1, len(data))]
    told = [base64.b64encode(step).decode() for step in path]
    return {"seq": seq, "leaf": data[seq - 1].decode(), "path": told, "checkpoint": {"note": note(tree)}}


def edited(random: Random, value: Any) -> Any:
    """The same JSON value, but for one thing in it."""
    if isinstance(value, dict) and value and random.random() < 0.8:
        key = random.choice(list(value))
        return {**value, key: edited(random, value[key])}
    if isinstance(value, list) and value and random.random() < 0.8:
        place = random.randrange(len(value))
        return [*value[:place], edited(random, value[place]), *value[place + 1 :]]
    match value:
        case dict():
            return {**value, "more": 1} if random.random() < 0.5 else dict(list(value.items())[:-1])
        case list():
            return [*value, 0]
        case bool() | None:
            return random.choice([other for other in (True, False, None) if other is not value])
        case int() | float():
            return random.choice([value + 1, -value - 1, str(value), value * 1e6 + 7])
    return random.choice([value + " ", value[:-1], value.swapcase() + "x", None, f"{value}\u0301"])


SIZE, POINTS = 17, (6, 11, 17)
DIGEST = "sha256:" + "c0ffee" * 10 + "beef"


def story(size: int, first: int = 1, by: str = "rita") -> list[bytes]:
    """Leaves such as the service writes: names, times, digests, numbers, words in several scripts."""
    kinds = ("promotion.requested", "promotion.transition", "approval", "canary.decision", "route.intended")
    return [
        leaf_data(
            n,
            f"2026-03-{n % 28 + 1:02}T10:00:00.{n:06}+00:00",
            kinds[n % len(kinds)],
            {
                "promotion": n // 3,
                "model": "prix-à-Genève-価格",
                "by": f"{by}-{n}",
                "weights": [10, 50, n],
                "p99": n + 0.125,
                "digest": DIGEST,
                "policy": {"required": 2, "prevent_self_review": True, "note": None},
            },
        )
        for n in range(first, first + size)
    ]


LEAVES = story(SIZE)
ANCHORS = [note(tree_of(LEAVES[:size])) for size in POINTS]
TRUE = export(LEAVES, ANCHORS)
BEGIN = len(TRUE) - sum(map(len, map(line, LEAVES)))


def check(data: bytes, anchors: Sequence[str] = ()) -> tuple[int, bytes, list[Any]]:
    tree, points = check_export(io.BytesIO(data), KEYS, anchors)
    return tree.size, tree.root(), points


def bad(data: bytes, anchors: Sequence[str] = ()) -> int | None:
    """The leaf that is named; fails where nothing is found."""
    with pytest.raises(Bad) as found:
        check(data, anchors)
    return found.value.leaf


def flip(random: Random, data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << random.randrange(8)]) + data[place + 1 :]


def exchange(random: Random, data: bytes, place: int) -> bytes:
    return data[:place] + bytes([random.randrange(256)]) + data[place + 1 :]


def insert(random: Random, data: bytes, place: int) -> bytes:
    return data[:place] + bytes([random.choice((data[place], random.randrange(256)))]) + data[place:]


def remove(random: Random, data: bytes, place: int) -> bytes:
    return data[:place] + data[place + 1 :]


def swap(random: Random, data: bytes, place: int) -> bytes:
    return data[:place] + data[place : place + 2][::-1] + data[place + 2 :]


CHANGES = (flip, exchange, insert, remove, swap)
