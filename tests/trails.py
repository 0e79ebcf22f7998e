"""Trails made by hand, signed and exported, for those who check or forge them."""

import base64
from collections.abc import Sequence
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.domain.audit import leaf_data
from app.domain.merkle import Frontier, inclusion_path, joined, leaf_hash
from app.domain.notes import Checkpoint, PublicKey, signed
from app.verifier.headgate_verify import parse_key

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
