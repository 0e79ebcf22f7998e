"""Signed checkpoints of the trail: C2SP's tlog-checkpoint in its signed-note format, as text.

https://github.com/C2SP/C2SP/blob/main/tlog-checkpoint.md and signed-note.md: three lines (origin, number of leaves,
root in base64), an empty line, and one line for each signature: an em dash, the key's name, and base64 of four bytes
that identify the key and of the signature itself.
"""

import base64
import hashlib
import re
from dataclasses import dataclass

ED25519 = b"\x01"
_NAME = re.compile(r"[^\s+]{1,200}")


@dataclass(frozen=True)
class Checkpoint:
    """How many leaves the trail named `origin` had, and the root (32 bytes) of the tree over them."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


@dataclass(frozen=True)
class PublicKey:
    """An Ed25519 key of 32 bytes, and the name under which it signs.

    Raises:
        ValueError: the name has spaces or a plus sign, or the key another length.
    """

    name: str
    key: bytes

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.key) != 32:
            raise ValueError(f"{self.name!a} with {len(self.key)} bytes is no name and key of Ed25519")

    def identity(self) -> bytes:
        """The four bytes by which a signature says whose it is."""
        return hashlib.sha256(self.name.encode() + b"\n" + ED25519 + self.key).digest()[:4]

    def text(self) -> str:
        """The verifier key that auditors keep: `<name>+<identity in hex>+<base64 of the algorithm and the key>`."""
        return f"{self.name}+{self.identity().hex()}+{base64.b64encode(ED25519 + self.key).decode()}"


def signed(checkpoint: Checkpoint, signatures: list[tuple[PublicKey, bytes]]) -> str:
    """The note: the checkpoint and its signatures."""
    lines = (
        f"\u2014 {key.name} {base64.b64encode(key.identity() + signature).decode()}\n" for key, signature in signatures
    )
    return f"{checkpoint.text()}\n{''.join(lines)}"
