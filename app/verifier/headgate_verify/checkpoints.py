"""Signed checkpoints (C2SP notes, Ed25519), and the public keys that they are checked with."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .reading import Bad, base64_of

_SIGNATURE = re.compile(r"\u2014 (\S{1,300}) ([A-Za-z0-9+/=]{1,500})")


@dataclass(frozen=True)
class Key:
    """A public key of Ed25519, the name under which it signs, and the four bytes that stand for it."""

    name: str
    identity: bytes
    key: bytes


@dataclass(frozen=True)
class Checkpoint:
    """A signed statement: the trail named `origin` had `size` leaves, and this root."""

    origin: str
    size: int
    root: bytes


def parse_key(text: str) -> Key:
    """A verifier key. Raises Bad where it is none of Ed25519."""
    name, _, rest = text.strip().partition("+")
    identity, _, data = rest.partition("+")
    raw = base64_of(data, "the key")
    expected = hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4]
    if len(raw) != 33 or raw[0] != 1 or identity != expected.hex():
        raise Bad(f"{text[:80]!r} is no verifier key: <name>+<8 hex digits>+<base64>, of Ed25519")
    return Key(name, expected, raw[1:])


def parse_note(note: str, keys: Sequence[Key]) -> Checkpoint:
    """The checkpoint that a note holds. Raises Bad where none of the keys has signed it, or one has signed falsely."""
    body, gap, signatures = note.encode(errors="replace").decode().partition("\n\n")  # half a pair becomes another text
    lines = body.split("\n")
    if not gap or len(lines) != 3 or not re.fullmatch(r"0|[1-9][0-9]{0,17}", lines[1]):
        raise Bad(f"this is no checkpoint: {note[:80]!r}")
    _check_signatures(f"{body}\n".encode(), signatures, keys)
    root = base64_of(lines[2], "a checkpoint's root")
    if len(root) != 32:
        raise Bad("a checkpoint's root is not a SHA-256")
    return Checkpoint(lines[0], int(lines[1]), root)


def _check_signatures(text: bytes, signatures: str, keys: Sequence[Key]) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    good = 0
    for line in signatures.strip("\n").split("\n"):
        found = _SIGNATURE.fullmatch(line)
        if found is None:
            raise Bad(f"a checkpoint has a line that is no signature: {line[:80]!r}")
        raw = base64_of(found[2], "a signature")
        for key in keys:
            if (key.name, key.identity) != (found[1], raw[:4]):
                continue
            try:
                Ed25519PublicKey.from_public_bytes(key.key).verify(raw[4:], text)
            except InvalidSignature:
                raise Bad(f"the signature of {key.name} under a checkpoint is false") from None
            good += 1
    if not good:
        raise Bad(f"none of the given keys has signed the checkpoint {text[:60]!r}")


def has_signed(key: Key, signature: bytes, text: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key.key).verify(signature, text)
    except InvalidSignature:
        return False
    return True


def notes(lines: Iterable[str]) -> Iterator[str]:
    """The notes of a file that has an empty line after each of them."""
    note, gaps = "", 0
    for line in lines:
        if line == "\n" and gaps:
            yield note
            note, gaps = "", 0
        else:
            gaps += line == "\n"
            note += line
        if len(note) > 65536:
            raise Bad("a checkpoint is longer than any that there can be")
    if note.strip():
        yield note


def kept(anchor: Path) -> list[str]:
    try:
        with anchor.open(encoding="utf-8", newline="\n") as lines:
            return list(notes(lines))
    except UnicodeDecodeError:
        raise Bad(f"{anchor} is not a file of checkpoints") from None
