"""What a digest covers: canonical JSON, its SHA-256, and the digest that a reviewer approves."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

ALGORITHM = "sha256"


def canonical(value: Any) -> bytes:
    """Serialise a JSON value the one way that is hashed: sorted keys, no spaces, UTF-8, no NaN.

    Raises:
        ValueError: the value holds NaN or an infinity, which JSON has no word for.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


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
