"""Digests: SHA-256 of bytes and of canonical JSON, and the digest that a reviewer approves."""

import hashlib
from collections.abc import Mapping
from typing import Any

from app.domain.canonical import canonical

ALGORITHM = "sha256"


def digest_bytes(data: bytes) -> str:
    """`sha256:<hex>` of raw bytes."""
    return f"{ALGORITHM}:{hashlib.sha256(data).hexdigest()}"


def digest_json(value: Any) -> str:
    """`sha256:<hex>` of the canonical form of a JSON value."""
    return digest_bytes(canonical(value))


def short(digest: str) -> str:
    """The 12 characters by which people and headers name a digest."""
    return digest.rpartition(":")[2][:12]


RELEASE_PARTS = ("model", "version", "environment", "tree", "onnx", "config", "image", "policy", "evidence")


def release_digest(parts: Mapping[str, str]) -> str:
    """The digest that reviewers approve: one change in any of `RELEASE_PARTS` gives another digest.

    Raises:
        ValueError: a part is missing or unknown, so that nothing is ever approved half.
    """
    if set(parts) != set(RELEASE_PARTS):
        raise ValueError(f"a release digest covers exactly {RELEASE_PARTS}, got {sorted(parts)}")
    return digest_json(dict(parts))


def changed_parts(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    """Which of `RELEASE_PARTS` differ."""
    return tuple(part for part in RELEASE_PARTS if before.get(part) != after.get(part))
