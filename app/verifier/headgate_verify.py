#!/usr/bin/env python3
"""Checks Headgate's audit trail without Headgate: an export, the proof of one leaf, or the evidence of one promotion.

    python headgate_verify.py export trail.txt --key KEY [--anchor checkpoints.txt]
    python headgate_verify.py proof answer.json --key KEY
    python headgate_verify.py pack promotion.zip --key KEY [--anchor checkpoints.txt]

This one file needs Python 3.11 and the package `cryptography`; copy it to where you check. KEY is the public key that
you were given when the trail began (`<name>+<8 hex digits>+<base64>`), not one that comes with what you check. An
anchor is a file of checkpoints that was kept where nobody who could change the database could reach it.

What it proves: no leaf up to the newest checkpoint was changed, added, taken away or moved since that checkpoint was
signed. What nothing can prove without a checkpoint from outside: that whoever holds the database and the signing key
did not write the whole trail anew. Formats: RFC 6962 (tree), RFC 8785 (leaves), C2SP signed notes (checkpoints), DSSE
and in-toto (the statement of a pack). Each command says in words what it has proved, and what it has not.
"""

import argparse
import base64
import binascii
import hashlib
import hmac
import io
import json
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

FORMAT = "headgate-audit-export/1"
LONGEST_LINE = 16 << 20
_FIELDS = {"at", "body", "kind", "seq"}
LARGEST_PACK = 256 << 20
MOST_FILES = 5000
PREDICATE = "urn:headgate:attestation:promotion:1"
REMOVABLE = re.compile(r"people\.json|index\.html")
"""What may be taken out of a pack when a person has to be forgotten: nothing that is proved stands on it."""
_NAME = re.compile(r"(?=.{1,100}\Z)[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_TOKEN = re.compile(r"(?:person|said):([0-9a-f]{64})")
_STEP = re.compile(r"evidence/([0-9]{3,})-([a-z_]+)\.json")
_JUDGED = ("BUILD", "CONVERT", "GATES", "PROVE", "SCAN", "SNAPSHOT")
_SIGNATURE = re.compile(r"\u2014 (\S{1,300}) ([A-Za-z0-9+/=]{1,500})")


class Bad(Exception):
    """What was found; `leaf` is the number of the first leaf that does not hold, where it can be named."""

    def __init__(self, reason: str, leaf: int | None = None) -> None:
        super().__init__(reason)
        self.leaf = leaf


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


class Tree:
    """A Merkle tree that grows: the full subtrees that it falls into, largest first."""

    def __init__(self) -> None:
        self.size = 0
        self.peaks: list[bytes] = []

    def add(self, leaf: bytes) -> None:
        self.peaks.append(leaf)
        index = self.size
        while index & 1:
            right = self.peaks.pop()
            self.peaks[-1] = hashlib.sha256(b"\x01" + self.peaks[-1] + right).digest()
            index >>= 1
        self.size += 1

    def root(self) -> bytes:
        if not self.peaks:
            return hashlib.sha256().digest()
        found = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            found = hashlib.sha256(b"\x01" + peak + found).digest()
        return found


def parse_key(text: str) -> Key:
    """A verifier key. Raises Bad where it is none of Ed25519."""
    name, _, rest = text.strip().partition("+")
    identity, _, data = rest.partition("+")
    raw = _base64(data, "the key")
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
    root = _base64(lines[2], "a checkpoint's root")
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
        raw = _base64(found[2], "a signature")
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


def check_export(export: BinaryIO, keys: Sequence[Key], anchored: Iterable[str] = ()) -> tuple[Tree, list[Checkpoint]]:
    """Read an export and compare it with the checkpoints in it and with `anchored` ones (notes).

    Returns the tree over all leaves, and the checkpoints that it agrees with, oldest first.

    Raises:
        Bad: something does not hold.
    """
    origin, size, count = _first_line(export)
    inside = [_note_of(export) for _ in range(count)]
    points = sorted((parse_note(note, keys) for note in (*inside, *anchored)), key=lambda point: point.size)
    for point in points:
        if point.origin != origin:
            raise Bad(f"the export is of the trail {origin[:80]!r}, a checkpoint of {point.origin[:80]!r}")
    tree, waiting, good = Tree(), points[::-1], 0
    for data in _leaves(export):
        good = _agree(tree, waiting, good)
        tree.add(hashlib.sha256(b"\x00" + data).digest())
    _agree(tree, waiting, good)
    if tree.size != size:
        raise Bad(f"the export promises {size} leaves and has {tree.size}", min(size, tree.size) + 1)
    if waiting:
        raise Bad(f"a checkpoint has {waiting[0].size} leaves, the export only {tree.size}", tree.size + 1)
    signed = points[-1].size if points else 0
    if signed < tree.size:
        raise Bad(f"no checkpoint has the leaves from {signed + 1} on: anybody may have written them", signed + 1)
    return tree, points


def _agree(tree: Tree, waiting: list[Checkpoint], good: int) -> int:
    """Compare the tree with the checkpoints of its size; returns the size of the last checkpoint that agrees."""
    reached = good
    while waiting and waiting[-1].size == tree.size:
        if waiting.pop().root != tree.root():
            raise Bad(f"one of the leaves {good + 1} to {tree.size} is not what the checkpoint has", good + 1)
        reached = tree.size
    return reached


def _first_line(export: BinaryIO) -> tuple[str, int, int]:
    words = _line(export).rstrip("\n").split(" ")
    if len(words) != 4 or words[0] != FORMAT or not all(re.fullmatch(r"[0-9]{1,18}", word) for word in words[2:]):
        raise Bad(f"this is no export: its first line is not '{FORMAT} <origin> <leaves> <checkpoints>'")
    return words[1], int(words[2]), int(words[3])


def _note_of(export: BinaryIO) -> str:
    note = next(notes(iter(lambda: _line(export), "")), "")
    if not note:
        raise Bad("the export's checkpoints are cut off")
    return note


def _line(export: BinaryIO) -> str:
    data = export.readline(LONGEST_LINE)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Bad("the export is not text in UTF-8") from None


def _leaves(export: BinaryIO) -> Iterator[bytes]:
    """The bytes of each leaf, once its line is what it should be by itself."""
    number = 0
    while line := export.readline(LONGEST_LINE):
        number += 1
        digest, data = line[:64], line[65:-1]
        if line[-1:] != b"\n" or line[64:65] != b" ":
            raise Bad(f"line {number} of the leaves is cut off, or longer than {LONGEST_LINE} bytes", number)
        if hashlib.sha256(b"\x00" + data).hexdigest().encode() != digest:
            raise Bad(f"leaf {number} does not match its hash", number)
        seq = _parsed(data, number)["seq"]
        if type(seq) is not int or seq != number:
            raise Bad(f"leaf {number} is missing: here stands leaf {str(seq)[:20]}", number)
        yield data


def _parsed(data: bytes, number: int) -> dict[str, Any]:
    try:
        leaf = json.loads(data, object_pairs_hook=_unambiguous)
    except (ValueError, RecursionError) as error:
        raise Bad(f"leaf {number} is not JSON that means one thing ({type(error).__name__})", number) from None
    if not isinstance(leaf, dict) or leaf.keys() != _FIELDS:
        raise Bad(f"leaf {number} has other fields than {', '.join(sorted(_FIELDS))}", number)
    return leaf


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def check_proof(proof: Any, keys: Sequence[Key]) -> tuple[dict[str, Any], Checkpoint]:
    """The leaf that a proof (the JSON of /api/v1/audit/proof, or the `proof` of an approval's answer) proves to be in
    the trail, and the checkpoint that it is in.

    Raises:
        Bad: it proves nothing.
    """
    try:
        seq, leaf, path, note = proof["seq"], proof["leaf"].encode(), proof["path"], proof["checkpoint"]["note"]
        steps = [_base64(step, "the path") for step in path]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Bad(f"this is no proof ({type(error).__name__}: {str(error)[:80]})") from None
    point = parse_note(str(note), keys)
    return _included(seq, leaf, steps, point), point


def _included(seq: Any, leaf: bytes, steps: list[bytes], point: Checkpoint) -> dict[str, Any]:
    """The leaf of these bytes, once its path leads to the checkpoint's root."""
    if type(seq) is not int or not 0 < seq <= point.size:
        raise Bad("the leaf's number is none that the checkpoint's trail has")
    if _root(seq - 1, point.size, hashlib.sha256(b"\x00" + leaf).digest(), steps) != point.root:
        raise Bad(f"leaf {seq} is not in the trail of this checkpoint", seq)
    found = _parsed(leaf, seq)
    if found["seq"] != seq:
        raise Bad(f"the leaf is {str(found['seq'])[:20]}, the proof is of {seq}", seq)
    return found


def _root(index: int, size: int, leaf: bytes, path: list[bytes]) -> bytes:
    """RFC 9162, 2.1.3.2."""
    found, place, last, left = leaf, index, size - 1, path[::-1]
    while last:
        if place & 1 or place == last:
            found = _above(left.pop() if left else b"", found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = _above(found, left.pop() if left else b"")
        place, last = place >> 1, last >> 1
    return b"" if left else found


def _above(left: bytes, right: bytes) -> bytes:
    if len(left) != 32 or len(right) != 32:
        raise Bad("the path is shorter than the tree is high, or no path of SHA-256")
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True)
class Pack:
    """A pack that was read: its files by name, the leaves in it, each proved, and the checkpoint that they are in."""

    files: Mapping[str, bytes]
    missing: Sequence[str]
    predicate: Mapping[str, Any]
    point: Checkpoint
    leaves: Sequence[Mapping[str, Any]]

    def json(self, name: str) -> Any:
        """A file as JSON; None where the pack has no such file. Raises Bad where it means more than one thing."""
        return _json(self.files[name], name) if name in self.files else None


def check_pack(data: bytes, keys: Sequence[Key], anchored: Iterable[str] = ()) -> list[str]:
    """All that a pack of evidence proves, in sentences for people; `anchored` are checkpoints from outside (notes).

    Raises:
        Bad: something does not hold.
    """
    files = read_pack(data)
    missing = _check_manifest(files)
    predicate = _statement(files, keys)
    point = parse_note(_text(files, "checkpoint.txt"), keys)
    if predicate.get("trail") != {"origin": point.origin, "size": point.size, "root": point.root.hex()}:
        raise Bad("the statement is about another checkpoint than the pack has")
    pack = Pack(files, missing, predicate, point, _proved(files, point, predicate.get("promotion")))
    return [
        f"All {len(files)} files are as they were when the service signed them.",
        *(f"{name} was taken out of the pack; nothing below stands on it." for name in missing),
        f"{len(pack.leaves)} leaves about promotion {predicate['promotion']} are in the trail {point.origin}, in the"
        f" checkpoint of {point.size} leaves.",
        *_check_anchors(pack, keys, anchored),
        *_check_story(pack),
        *_check_release(pack),
        *_check_people(pack),
        "Not proved: that the pack holds every leaf about the promotion (an export of the trail shows that), and that "
        "names are those of the people who used them.",
    ]


def read_pack(data: bytes) -> dict[str, bytes]:
    """The files of a pack. It must be laid out as the service does it: plain files that are stored as they are, one
    behind the other with nothing between, so that every program that opens it sees the same.

    Raises:
        Bad: it is anything else.
    """
    files: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            end = 0
            for info in archive.infolist()[: MOST_FILES + 1]:
                _check_entry(info, end, files)
                files[info.filename] = archive.read(info)
                end += 30 + len(info.filename) + info.file_size
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise Bad(f"this is no sound archive ({type(error).__name__}: {str(error)[:80]})") from None
    if len(files) > MOST_FILES or end + sum(46 + len(name) for name in files) + 22 != len(data):
        raise Bad("the archive holds more than its files")
    return files


def _check_entry(info: zipfile.ZipInfo, end: int, files: Mapping[str, bytes]) -> None:
    shown = ascii(info.orig_filename)[:120]
    if not _NAME.fullmatch(info.orig_filename) or info.filename != info.orig_filename or info.filename in files:
        raise Bad(f"the archive has a file of the name {shown}, which is no plain one or stands twice")
    if info.flag_bits or info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise Bad(f"{shown} is packed or encrypted; files of a pack are stored as they are")
    if info.external_attr >> 16 != 0o100644 or info.header_offset != end or info.extra or info.comment:
        raise Bad(f"{shown} is no plain file, or does not stand where it should")


def _check_manifest(files: Mapping[str, bytes]) -> list[str]:
    """Returns the files that were taken out."""
    listed: dict[str, str] = {}
    for line in _text(files, "MANIFEST").splitlines():
        found = _LINE.fullmatch(line)
        if found is None or found[2] in listed:
            raise Bad(f"MANIFEST has a line that is none, or stands twice: {line[:80]!a}")
        listed[found[2]] = found[1]
    for name in sorted(files.keys() - listed.keys() - {"MANIFEST", "statement.dsse.json"}):
        raise Bad(f"{name} is not in MANIFEST")
    for name, digest in listed.items():
        if name in files and hashlib.sha256(files[name]).hexdigest() != digest:
            raise Bad(f"{name} was changed")
        if name not in files and not REMOVABLE.fullmatch(name):
            raise Bad(f"{name[:100]} is missing")
    return sorted(listed.keys() - files.keys())


def _statement(files: Mapping[str, bytes], keys: Sequence[Key]) -> dict[str, Any]:
    """The predicate of the signed in-toto statement, once it is about this MANIFEST."""
    try:
        envelope = _json(files["statement.dsse.json"], "statement.dsse.json")
        kind, payload = envelope["payloadType"], _base64(envelope["payload"], "the statement's payload")
        signatures = [_base64(entry["sig"], "the statement's signature") for entry in envelope["signatures"]]
    except (KeyError, TypeError):
        raise Bad("the pack has no statement in an envelope of DSSE") from None
    if kind != "application/vnd.in-toto+json":
        raise Bad("the statement's envelope is not one of in-toto")
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    if not any(_has_signed(key, signature, signed) for key in keys for signature in signatures):
        raise Bad("none of the given keys has signed the statement")
    statement = _json(payload, "the statement")
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


def _has_signed(key: Key, signature: bytes, text: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key.key).verify(signature, text)
    except InvalidSignature:
        return False
    return True


def _proved(files: Mapping[str, bytes], point: Checkpoint, promotion: Any) -> list[dict[str, Any]]:
    """The leaves of the pack, in order: each is in the trail, and about the promotion."""
    found: list[dict[str, Any]] = []
    for entry in _entries(files, "leaves.json", ("seq", "leaf", "path")):
        steps = [_base64(step, "the path") for step in entry["path"]]
        leaf = _included(entry["seq"], str(entry["leaf"]).encode(errors="replace"), steps, point)
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
    paths = {entry["old"]: entry["path"] for entry in _entries(pack.files, "consistency.json", ("old", "path"))}
    compared = []
    for old in kept:
        if old.origin != point.origin:
            raise Bad(f"the anchor has a checkpoint of another trail: {old.origin[:80]!r}")
        if old.size == point.size:
            began_so = old.root == point.root
        elif old.size in paths and 0 < old.size < point.size:
            began_so = _began_as(old, point, [_base64(step, "the proof of consistency") for step in paths[old.size]])
        else:
            continue
        if not began_so:
            raise Bad(f"the trail is another one than that of the checkpoint of {old.size} leaves from outside")
        compared.append(old.size)
    if not compared:
        raise Bad("the pack can be compared with none of the checkpoints from outside")
    held = sum(leaf["seq"] <= max(compared) for leaf in pack.leaves)
    yield f"{len(compared)} checkpoints from outside agree; {held} of the leaves are in them, too."


def _began_as(old: Checkpoint, new: Checkpoint, path: list[bytes]) -> bool:
    """RFC 9162, 2.1.4.2."""
    steps = [old.root, *path] if old.size & (old.size - 1) == 0 else list(path)
    place, last = old.size - 1, new.size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    if not steps:
        return False
    before = after = steps[0]
    for step in steps[1:]:
        if not last:
            return False
        if place & 1 or place == last:
            before, after = _above(step, before), _above(step, after)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            after = _above(after, step)
        place, last = place >> 1, last >> 1
    return not last and (before, after) == (old.root, new.root)


def _check_story(pack: Pack) -> Iterator[str]:
    """The steps follow each other without a gap, and what each left is what its leaf says."""
    state, number, held = "REQUESTED", 0, 0
    kept = {int(found[1]): (found[2], name) for name in pack.files if (found := _STEP.fullmatch(name))}
    for leaf in pack.leaves:
        if leaf["kind"] != "promotion.transition":
            continue
        body, number = leaf["body"], number + 1
        if body.get("from") != state:
            raise Bad(
                f"leaf {leaf['seq']} goes on from {body.get('from')}, the one before came to {state}", leaf["seq"]
            )
        step, name = kept.pop(number, ("", ""))
        if name and (step, _digest(pack.files[name])) != (str(state).lower(), body.get("evidence")):
            raise Bad(f"{name} is not what leaf {leaf['seq']} says that {state} left", leaf["seq"])
        state, held = body.get("to"), held + bool(name)
    if kept:
        raise Bad(f"no leaf is about {min(name for _, name in kept.values())}")
    if pack.predicate.get("state") != state:
        raise Bad(f"the statement says {str(pack.predicate.get('state'))[:40]}, the leaves came to {state}")
    yield f"The promotion came to {state} in {number} steps; the evidence of {held} of them is in the pack, unchanged."


def _check_release(pack: Pack) -> Iterator[str]:
    """What was approved is what the pack shows: parts, policy, evidence, and who approved just that digest."""
    last = [leaf for leaf in pack.leaves if leaf["kind"] == "promotion.transition"]
    again = max((leaf["seq"] for leaf in pack.leaves if leaf["kind"] == "promotion.retry"), default=0)
    named = [leaf for leaf in pack.leaves if leaf["seq"] >= again and isinstance(leaf["body"].get("policy"), str)]
    policy = _digest(pack.files.get("policy.json", b""))
    if not named or any(leaf["body"]["policy"] != policy for leaf in named):
        raise Bad("policy.json is not the policy that the leaves name")
    yield f"It was judged by the policy {policy}."
    asked = [leaf for leaf in last if leaf["body"].get("to") == "APPROVAL" and leaf["seq"] > again]
    if not asked:
        yield "It never came to a digest that could be approved."
        if "release.json" in pack.files or pack.predicate.get("release"):
            raise Bad("the pack shows a release that no leaf names")
        return
    release, parts = _digest(pack.files.get("release.json", b"")), pack.json("release.json")
    if asked[-1]["body"].get("digest") != release or pack.predicate.get("release") != release:
        raise Bad("release.json is not what waited for approval", asked[-1]["seq"])
    if asked[-1]["body"].get("parts", parts) != parts or not isinstance(parts, dict):
        raise Bad("the parts of the release are not those of its leaf", asked[-1]["seq"])
    _check_parts(pack, parts, asked[-1])
    yield f"What was asked to be approved is {release}, made of {', '.join(sorted(parts))}."
    yield from _decided(pack, release, [leaf for leaf in pack.leaves if leaf["seq"] > asked[-1]["seq"]])


def _check_parts(pack: Pack, parts: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Each part is what the evidence, the policy and the leaf say of it, and what the statement is about."""
    number = sum(leaf["kind"] == "promotion.transition" and leaf["seq"] <= asked["seq"] for leaf in pack.leaves)
    files = {}
    for back, state in enumerate(("PROVE", "BUILD", "GATES", "CONVERT", "SCAN", "SNAPSHOT")):
        files[state] = pack.files.get(f"evidence/{number - back:03}-{state.lower()}.json", b"null")
    seen = {state: _json(data, f"the evidence of {state}") or {} for state, data in files.items()}
    together = b",".join(b'"%s":%s' % (state.encode(), files[state]) for state in _JUDGED)
    expected = {
        **{key: asked["body"].get(key) for key in ("model", "version", "environment", "policy")},
        "tree": seen["SNAPSHOT"].get("tree"),
        "onnx": seen["CONVERT"].get("onnx"),
        "config": seen["BUILD"].get("config"),
        "image": seen["BUILD"].get("image") or seen["BUILD"].get("repository"),
        "evidence": _digest(b"{%s}" % together),
    }
    for name, value in expected.items():
        if parts.get(name) != value:
            raise Bad(f"the release's {name} is not what the pack's evidence says")
    shown = {"model": "tree", "onnx": "onnx", "config": "config", "image": "image"}
    for subject, part in shown.items():
        said = pack.predicate["subjects"].get(subject)
        if said is not None and f"sha256:{said}" != parts[part]:
            raise Bad(f"the statement is about another {subject}")
    for name, part in (("model-files.json", "tree"), ("config.pbtxt", "config")):
        if name in pack.files and _digest(pack.files[name]) != parts[part]:
            raise Bad(f"{name} is not what was approved")


def _decided(pack: Pack, release: str, later: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What people said of the release, and whether that was enough when it was rolled out."""
    required, roles, by_role = _rules(pack)
    approved, rejected, broken, went_on = dict[str, str](), False, "", False
    for leaf in later:
        body, kind = leaf["body"], leaf["kind"]
        mine, by = body.get("digest") == release, str(body.get("by"))
        if kind == "promotion.transition":
            if not mine:
                raise Bad(f"leaf {leaf['seq']} goes on with another digest than waited for approval", leaf["seq"])
            if body.get("to") == "ROLLOUT":
                went_on = True
                yield f"Leaf {leaf['seq']}, {leaf['at']}: rolled out, with {len(approved)} approvals of {required}."
                enough = all([*approved.values()].count(role) >= count for role, count in by_role.items())
                if not broken and (len(approved) < required or not enough):
                    asks = f"{required}{f', among them {by_role}' if by_role else ''}"
                    raise Bad(f"it was rolled out after {len(approved)} approvals; the policy asks for {asks}")
                if rejected:
                    yield "ASK WHY: somebody had rejected it, which only stops counting where she has lost her role."
        elif "decision" in body:
            about = "this digest" if mine else "another digest, which does not count"
            yield f"Leaf {leaf['seq']}, {leaf['at']}: {_who(pack, by)}: {body['decision']}, {about}."
            match body["decision"] if mine else "":
                case "approve" if body.get("role") in roles:
                    approved[by] = body["role"]
                case "reject":
                    rejected = True
                case "revoke":
                    approved.pop(str(body.get("person")), None)
                case "break-glass":
                    broken = str(body.get("until")) if body.get("open") is True else broken
        elif kind == "promotion.stop":
            yield f"Leaf {leaf['seq']}, {leaf['at']}: {_who(pack, by)} asked to end it {body.get('to')}."
    emergency = f" The glass was broken, until {broken}." if broken else ""
    yield f"{len(approved)} people approved just this digest; the policy asks for {required}.{emergency}"
    yield "It was rolled out." if went_on else "It was not rolled out."


def _rules(pack: Pack) -> tuple[int, Sequence[str], Mapping[str, int]]:
    """How many people have to approve, of which roles, and at least how many of a role.

    Raises:
        Bad: the policy does not say so.
    """
    try:
        rules = pack.json("policy.json")["approvals"]
        by_role = {str(role): int(count) for role, count in rules.get("by_role", {}).items()}
        judged = [name for name in sorted(pack.files) if _STEP.fullmatch(name) and name.endswith("-gates.json")]
        results = pack.json(judged[-1]).get("results", ()) if judged else ()
        unsure = any(gate["verdict"] == "inconclusive" for gate in results)
        return max(int(rules["required"]), sum(by_role.values()), int(unsure)), list(rules["roles"]), by_role
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Bad("policy.json does not say who has to approve") from None


def _who(pack: Pack, token: Any) -> str:
    openings = pack.json("people.json")
    found = openings.get("openings") if isinstance(openings, dict) else None
    known = {entry.get("token"): entry.get("value") for entry in found or () if isinstance(entry, dict)}
    return ascii(known[token]) if token in known else str(token)[:30]


def _check_people(pack: Pack) -> Iterator[str]:
    """Every opening is of something in the leaves, or in the evidence that they vouch for, and is what stands there."""
    steps = (_text(pack.files, name) for name in pack.files if _STEP.fullmatch(name))
    tokens = {found[0] for text in (*map(json.dumps, pack.leaves), *steps) for found in _TOKEN.finditer(text)}
    opened = _entries(pack.files, "people.json", ("token", "salt", "value"), "openings")
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


def _entries(files: Mapping[str, bytes], name: str, keys: Sequence[str], within: str = "") -> list[dict[str, Any]]:
    """The list of objects in a file, each with just these keys; nothing where there is no such file."""
    found = _json(files[name], name) if name in files else []
    if within and isinstance(found, dict):
        found = found.get(within)
    if not isinstance(found, list) or not all(isinstance(entry, dict) and entry.keys() == {*keys} for entry in found):
        raise Bad(f"{name} has another form than it should have")
    if any(not isinstance(entry["path"], list) for entry in found if "path" in entry):
        raise Bad(f"{name} has another form than it should have")
    return found


def _json(data: bytes, name: str) -> Any:
    try:
        return json.loads(data, object_pairs_hook=_unambiguous)
    except (ValueError, RecursionError):
        raise Bad(f"{name} is not JSON that means one thing") from None


def _text(files: Mapping[str, bytes], name: str) -> str:
    try:
        return files[name].decode()
    except (KeyError, UnicodeDecodeError):
        raise Bad(f"the pack has no {name}, or one that is not text") from None


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _base64(text: Any, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise Bad(f"{what} is not base64") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 where all holds, 1 where something does not, 2 for arguments that make no sense."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("export", "proof", "pack"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--key", action="append", required=True, help="a public key that you trust; may be repeated")
    parser.add_argument("--anchor", action="append", type=Path, default=[], help="checkpoints that were kept elsewhere")
    given = parser.parse_args(arguments)
    try:
        keys = [parse_key(text) for text in given.key]
        sys.stdout.write(f"{_told(given.what, given.file, keys, given.anchor)}\n")
    except Bad as bad:
        sys.stderr.write(f"DOES NOT HOLD: {bad}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{error.filename}: {error.strerror}\n")
        return 2
    return 0


def _told(what: str, file: Path, keys: Sequence[Key], anchors: Sequence[Path]) -> str:
    outside = [note for anchor in anchors for note in kept(anchor)]
    if what == "export":
        return _export(file, keys, outside)
    if what == "proof":
        return _proof(file, keys)
    with file.open("rb") as pack:
        data = pack.read(LARGEST_PACK + 1)
    if len(data) > LARGEST_PACK:
        raise Bad(f"the pack is larger than any that there can be ({LARGEST_PACK} bytes)")
    return "\n".join(check_pack(data, keys, outside))


def _export(file: Path, keys: Sequence[Key], outside: Sequence[str]) -> str:
    with file.open("rb") as export:
        tree, points = check_export(export, keys, outside)
    covered = points[-1].size if points else 0
    counted = f"{len(points)} signed checkpoints, {len(outside)} of them from outside"
    said = f"{tree.size} leaves hold; {counted}, cover {covered}"
    return said if outside else f"{said}. Without one from outside, a trail made anew as a whole would hold as well."


def kept(anchor: Path) -> list[str]:
    try:
        with anchor.open(encoding="utf-8", newline="\n") as lines:
            return list(notes(lines))
    except UnicodeDecodeError:
        raise Bad(f"{anchor} is not a file of checkpoints") from None


def _proof(file: Path, keys: Sequence[Key]) -> str:
    try:
        answer = json.loads(file.read_bytes(), object_pairs_hook=_unambiguous)
    except (ValueError, RecursionError):
        raise Bad(f"{file} is not JSON") from None
    proof = answer.get("proof", answer) if isinstance(answer, dict) else answer
    leaf, point = check_proof(proof, keys)
    told = json.dumps(leaf, indent=2, sort_keys=True)
    return f"{told}\nThis is leaf {leaf['seq']} of {point.origin}, in the checkpoint of {point.size} leaves."


if __name__ == "__main__":
    sys.exit(main())
