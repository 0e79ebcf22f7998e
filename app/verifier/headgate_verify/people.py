"""People in a pack: the openings of the salted hashes that stand for names and words."""

import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from typing import Any

from .archive import STEP, Pack, entries
from .reading import Bad, text_of

_TOKEN = re.compile(r"(?:person|said):([0-9a-f]{64})")


def check_people(pack: Pack) -> Iterator[str]:
    """Every opening is of something in the leaves, or in the evidence that they vouch for, and is what stands there."""
    steps = (text_of(pack.files, name) for name in pack.files if STEP.fullmatch(name))
    tokens = {found[0] for text in (*map(json.dumps, pack.leaves), *steps) for found in _TOKEN.finditer(text)}
    opened = entries(pack.files, "people.json", ("token", "salt", "value"), "openings")
    for entry in opened:
        found = _TOKEN.fullmatch(str(entry["token"]))
        try:
            made = hmac.new(bytes.fromhex(entry["salt"]), entry["value"].encode(), hashlib.sha256).hexdigest()
        except (ValueError, TypeError, AttributeError):
            raise Bad("people.json has an opening that is none") from None
        if found is None or found[0] not in tokens or made != found[1]:
            raise Bad(f"people.json says of {str(entry['token'])[:30]} what no leaf does")
    said = "names and reasons are opened in people.json, and are what leaves and evidence stand for."
    yield f"{len(opened)} of {len(tokens)} {said}"


def who(pack: Pack, token: Any) -> str:
    openings = pack.json("people.json")
    found = openings.get("openings") if isinstance(openings, dict) else None
    known = {entry.get("token"): entry.get("value") for entry in found or () if isinstance(entry, dict)}
    return ascii(known[token]) if token in known else str(token)[:30]
