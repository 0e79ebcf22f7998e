"""What is read has to mean one thing, whoever wrote it; `Bad` says what does not."""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any


class Bad(Exception):
    """What was found; `leaf` is the number of the first leaf that does not hold, where it can be named."""

    def __init__(self, reason: str, leaf: int | None = None) -> None:
        super().__init__(reason)
        self.leaf = leaf


def json_of(data: bytes, name: str) -> Any:
    try:
        return json.loads(data, object_pairs_hook=unambiguous)
    except (ValueError, RecursionError):
        raise Bad(f"{name} is not JSON that means one thing") from None


def unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def text_of(files: Mapping[str, bytes], name: str) -> str:
    try:
        return files[name].decode()
    except (KeyError, UnicodeDecodeError):
        raise Bad(f"the pack has no {name}, or one that is not text") from None


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def base64_of(text: Any, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise Bad(f"{what} is not base64") from None
