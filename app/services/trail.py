"""The audit trail as others see it: pages, checkpoints, proofs, exports, and its check in the database."""

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy.orm import Session

from app.db import audit, openings, outbox
from app.db.session import Database, now
from app.domain.audit import Leaf, Verdict, verify_leaves
from app.domain.errors import Fault, NotFound
from app.domain.merkle import (
    Frontier,
    Node,
    consistency_path,
    inclusion_path,
    joined,
    leaf_hash,
    node_hash,
    root_from_inclusion,
)
from app.domain.notes import Checkpoint, signed
from app.parts import Core
from app.ports import Anchor, Signer
from app.services.writeback import SET_MODEL_TAG

FORMAT = "headgate-audit-export/1"
PAGE = 500
KEYS = "trail.keys"
TAG = "headgate.checkpoint"


def page(db: Database, after: int, limit: int) -> list[dict[str, Any]]:
    """Leaves behind `after`, in order, each with the openings of what personal data it stands for."""
    with db.read() as session:
        found = list(audit.leaves(session, after, limit))
        known = {opening.token: opening for opening in openings.of(session, [leaf.body for leaf in found])}
    return [{**vars(leaf), "openings": _openings(leaf, known)} for leaf in found]


def _openings(leaf: Leaf, known: Mapping[str, openings.Opening]) -> list[dict[str, str]]:
    return [vars(known[token]) for token in openings.tokens(leaf.body) if token in known]


def verify(db: Database) -> Verdict:
    """Walk all leaves in the database, and the tree over them; a trail of another length or root than its head row says
    does not hold."""
    with db.read() as session:
        verdict = verify_leaves(audit.leaves(session))
        _, tree = audit.head(session)
        bad = _first_bad_node(session, verdict.leaves) if verdict.verified else None
    if bad is not None:
        said = "the tree that was kept is not that of the leaves"
        return Verdict(verdict.leaves, bad, said, verdict.root)
    if verdict.verified and (verdict.leaves, verdict.root) != (tree.size, tree.root().hex()):
        first = min(verdict.leaves, tree.size) + 1
        said = f"{tree.size} leaves were written, {verdict.leaves} are there, or the tree has another root"
        return Verdict(verdict.leaves, first, said, verdict.root)
    return verdict


def _first_bad_node(session: Session, size: int) -> int | None:
    """The number of the first leaf under a kept node that is not what the two below it make; None where all are."""
    for level in range(1, size.bit_length()):
        below, here = audit.level(session, level - 1), audit.level(session, level)
        for position, (left, right) in zip(range(size >> level), zip(below, below, strict=False), strict=False):
            if next(here, None) != (position, node_hash(left[1], right[1])):
                return (position << level) + 1
    full = size - size.bit_count()  # as many nodes as a tree of this size has full subtrees above its leaves
    return None if audit.count_nodes(session) == full else size + 1


def checkpoint(core: Core) -> dict[str, Any]:
    """The trail's length and root, signed. Keep the `note` elsewhere: only against one that the database cannot reach
    do a trail that was cut off at its end, or one that was made anew as a whole, show."""
    with core.db.read() as session:
        origin, tree = audit.head(session)
    return _told(core.signer, origin, tree)


def _told(signer: Signer, origin: str, tree: Frontier) -> dict[str, Any]:
    found = Checkpoint(origin, tree.size, tree.root())
    return {
        "origin": origin,
        "leaves": tree.size,
        "root": found.root.hex(),
        "note": note_of(signer, found),
        "keys": [key.text() for key in signer.keys(origin)],
    }


def note_of(signer: Signer, found: Checkpoint) -> str:
    """The signed note of a checkpoint, with a signature of every key."""
    return signed(found, signer.sign(found.origin, found.text().encode()))


def proof(core: Core, seq: int) -> dict[str, Any]:
    """The leaf, its path to the root of the tree as it is now (RFC 6962, base64, from the leaf up), and the checkpoint
    that has this root.

    Raises:
        NotFound: there is no such leaf.
        Fault: the trail in the database does not hold at this leaf.
    """
    with core.db.read() as session:
        origin, tree = audit.head(session)
        leaf = next(audit.leaves(session, seq - 1, 1), None)
        if leaf is None or leaf.seq != seq:
            raise NotFound(f"The audit trail has no leaf {seq}.", f"It has {tree.size}.")
        path = path_of(session, leaf, tree)
        personal = openings.of(session, [leaf.body])
    return {
        "seq": seq,
        "leaf": leaf.data().decode(),
        "path": path,
        "openings": [vars(opening) for opening in personal],
        "checkpoint": _told(core.signer, origin, tree),
    }


def path_of(session: Session, leaf: Leaf, tree: Frontier) -> list[str]:
    """The leaf's path to the root of the tree (RFC 6962, base64, from the leaf up).

    Raises:
        Fault: the trail in the database does not hold at this leaf.
    """
    path = _hashes(session, inclusion_path(leaf.seq - 1, tree.size))
    _check(leaf, tree, path)
    return [base64.b64encode(step).decode() for step in path]


def consistency(core: Core, old: int) -> dict[str, Any]:
    """The proof (RFC 6962, base64) that the tree of `old` leaves is a beginning of the present one.

    Raises:
        NotFound: the trail never had so many leaves.
    """
    with core.db.read() as session:
        origin, tree = audit.head(session)
        if not 0 < old <= tree.size:
            raise NotFound(f"The audit trail was never one of {old} leaves.", f"It has {tree.size}.")
        path = beginning(session, old, tree.size)
    return {"old": old, "path": path, "checkpoint": _told(core.signer, origin, tree)}


def beginning(session: Session, old: int, size: int) -> list[str]:
    """The proof (RFC 6962, base64) that the tree of `old` leaves is the beginning of that of `size`."""
    return [base64.b64encode(step).decode() for step in _hashes(session, consistency_path(old, size))]


def _hashes(session: Session, path: list[Any]) -> list[bytes]:
    found = audit.hashes(session, (node for subtrees in path for node in subtrees))

    def look_up(node: Node) -> bytes:
        if node not in found:
            raise Fault(f"The audit trail lacks the node {node}.", "See `headgate audit verify`; restore a backup.")
        return found[node]

    return [joined(subtrees, look_up) for subtrees in path]


def _check(leaf: Leaf, tree: Frontier, path: list[bytes]) -> None:
    """What is handed out as a proof must be one: a changed leaf or node shows here at the latest."""
    if root_from_inclusion(leaf.seq - 1, tree.size, leaf_hash(leaf.data()), path) != tree.root():
        raise Fault(f"Leaf {leaf.seq} of the audit trail does not lead to its root.", "See `headgate audit verify`.")


def export(core: Core) -> Iterator[str]:
    """The whole trail as lines for the verifier: the format, every checkpoint, and each leaf's hash and bytes.

    All of it is up to one moment: what is appended meanwhile is left out.
    """
    with core.db.read() as session:
        origin, tree = audit.head(session)
        kept = [row.note for row in audit.checkpoints(session) if row.size < tree.size]
    notes = [*kept, note_of(core.signer, Checkpoint(origin, tree.size, tree.root()))]
    yield f"{FORMAT} {origin} {tree.size} {len(notes)}\n"
    yield from (f"{note}\n" for note in notes)
    after = 0
    while after < tree.size:
        with core.db.read() as session:
            found = list(audit.leaves(session, after, min(PAGE, tree.size - after)))
        if not found:
            return  # the verifier finds fewer leaves than the first line promises
        yield from (f"{leaf.hash} {leaf.data().decode()}\n" for leaf in found)
        after = found[-1].seq


def give_away(core: Core, anchor: Anchor) -> bool:
    """Sign the trail as it is where there is news since the last time, note it, and keep it outside of the database:
    at `anchor`, and as a tag on the models in MLflow that the news is about. Returns whether there was news.

    A new set of keys is a leaf of its own, so that the trail itself says when which key began to count. Whoever dies
    between the note and the anchor leaves the note to the next one.

    Raises:
        Fault: the anchor cannot be written.
    """
    _note_keys(core)
    with core.db.begin() as session:
        origin, tree = audit.head(session)
        last = audit.last_checkpoint(session)
        news = last is None or last.size < tree.size
        if news:
            note = note_of(core.signer, Checkpoint(origin, tree.size, tree.root()))
            audit.add_checkpoint(session, tree.size, now(session), note)
            for model in sorted(audit.models_between(session, last.size if last else 0, tree.size)):
                outbox.add(session, model, [(SET_MODEL_TAG, {"version": "", "key": TAG, "value": note})])
        else:
            note = last.note if last is not None else ""
    anchor.keep(note)
    return news


def _note_keys(core: Core) -> None:
    with core.db.read() as session:
        origin, _ = audit.head(session)
        known = audit.latest_of(session, KEYS)
    keys = [key.text() for key in core.signer.keys(origin)]
    if known is None or known.body["keys"] != keys:
        with core.db.begin() as session:
            audit.append(session, KEYS, {"keys": keys})
