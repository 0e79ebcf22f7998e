"""A pack of evidence: its signature, its leaves, the trail outside, and then what it tells."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .archive import Pack, check_manifest, entries, read_pack
from .checkpoints import Checkpoint, Key, has_signed, parse_note
from .leaves import included
from .people import check_people
from .reading import Bad, base64_of, json_of, text_of
from .story import check_release, check_story
from .tree import began_as

PREDICATE = "urn:headgate:attestation:promotion:1"


def check_pack(data: bytes, keys: Sequence[Key], anchored: Iterable[str] = ()) -> list[str]:
    """All that a pack of evidence proves, in sentences for people; `anchored` are checkpoints from outside (notes).

    Raises:
        Bad: something does not hold.
    """
    files = read_pack(data)
    missing = check_manifest(files)
    predicate = _statement(files, keys)
    point = parse_note(text_of(files, "checkpoint.txt"), keys)
    if predicate.get("trail") != {"origin": point.origin, "size": point.size, "root": point.root.hex()}:
        raise Bad("the statement is about another checkpoint than the pack has")
    pack = Pack(files, missing, predicate, point, _proved(files, point, predicate.get("promotion")))
    return [
        f"All {len(files)} files are as they were when the service signed them.",
        *(f"{name} was taken out of the pack; nothing below stands on it." for name in missing),
        f"{len(pack.leaves)} leaves about promotion {predicate['promotion']} are in the trail {point.origin}, in the"
        f" checkpoint of {point.size} leaves.",
        *_check_anchors(pack, keys, anchored),
        *check_story(pack),
        *check_release(pack),
        *check_people(pack),
        "Not proved: that the pack holds every leaf about the promotion (an export of the trail shows that), and that "
        "names are those of the people who used them.",
    ]


def _statement(files: Mapping[str, bytes], keys: Sequence[Key]) -> dict[str, Any]:
    """The predicate of the signed in-toto statement, once it is about this MANIFEST."""
    try:
        envelope = json_of(files["statement.dsse.json"], "statement.dsse.json")
        kind, payload = envelope["payloadType"], base64_of(envelope["payload"], "the statement's payload")
        signatures = [base64_of(entry["sig"], "the statement's signature") for entry in envelope["signatures"]]
    except (KeyError, TypeError):
        raise Bad("the pack has no statement in an envelope of DSSE") from None
    if kind != "application/vnd.in-toto+json":
        raise Bad("the statement's envelope is not one of in-toto")
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    if not any(has_signed(key, signature, signed) for key in keys for signature in signatures):
        raise Bad("none of the given keys has signed the statement")
    statement = json_of(payload, "the statement")
    try:
        subjects = {entry["name"]: entry["digest"]["sha256"] for entry in statement["subject"]}
        kinds, predicate = (statement["_type"], statement["predicateType"]), statement["predicate"]
    except (KeyError, TypeError):
        raise Bad("the statement is none of in-toto") from None
    if kinds != ("https://in-toto.io/Statement/v1", PREDICATE) or not isinstance(predicate, dict):
        raise Bad(f"the statement is of another kind: {str(kinds)[:120]}")
    if subjects.get("MANIFEST") != hashlib.sha256(files["MANIFEST"]).hexdigest():
        raise Bad("the statement is about another MANIFEST")
    return {**predicate, "subjects": subjects}


def _proved(files: Mapping[str, bytes], point: Checkpoint, promotion: Any) -> list[dict[str, Any]]:
    """The leaves of the pack, in order: each is in the trail, and about the promotion."""
    found: list[dict[str, Any]] = []
    for entry in entries(files, "leaves.json", ("seq", "leaf", "path")):
        steps = [base64_of(step, "the path") for step in entry["path"]]
        leaf = included(entry["seq"], str(entry["leaf"]).encode(errors="replace"), steps, point)
        if not isinstance(leaf["body"], dict) or leaf["body"].get("promotion") != promotion or promotion is None:
            raise Bad(f"leaf {leaf['seq']} is not about promotion {promotion}", leaf["seq"])
        if found and leaf["seq"] <= found[-1]["seq"]:
            raise Bad(f"leaf {leaf['seq']} stands behind leaf {found[-1]['seq']}", leaf["seq"])
        found.append(leaf)
    if not found or found[0]["kind"] != "promotion.requested":
        raise Bad("the pack does not begin with the leaf of the request")
    return found


def _check_anchors(pack: Pack, keys: Sequence[Key], anchored: Iterable[str]) -> Iterator[str]:
    """Compare the checkpoint with those from outside: of the same size, or by a proof that one began as the other."""
    kept, point = [parse_note(note, keys) for note in anchored], pack.point
    if not kept:
        yield "Without a checkpoint from outside (--anchor), a trail made anew as a whole would hold as well."
        return
    paths = {entry["old"]: entry["path"] for entry in entries(pack.files, "consistency.json", ("old", "path"))}
    compared = []
    for old in kept:
        if old.origin != point.origin:
            raise Bad(f"the anchor has a checkpoint of another trail: {old.origin[:80]!r}")
        if old.size == point.size:
            began_so = old.root == point.root
        elif old.size in paths and 0 < old.size < point.size:
            began_so = began_as(old, point, [base64_of(step, "the proof of consistency") for step in paths[old.size]])
        else:
            continue
        if not began_so:
            raise Bad(f"the trail is another one than that of the checkpoint of {old.size} leaves from outside")
        compared.append(old.size)
    if not compared:
        raise Bad("the pack can be compared with none of the checkpoints from outside")
    held = sum(leaf["seq"] <= max(compared) for leaf in pack.leaves)
    yield f"{len(compared)} checkpoints from outside agree; {held} of the leaves are in them, too."
