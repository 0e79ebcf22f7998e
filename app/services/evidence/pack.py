"""Putting a pack together: the documents, the pictures, the page, and the statement that signs them all."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from app.domain.canonical import canonical
from app.domain.digests import digest_bytes
from app.domain.errors import Fault
from app.parts import Core
from app.ports import ArtifactStore
from app.services import trail
from app.services.evidence import dossier as reading
from app.services.evidence.archive import MANIFEST, archive, manifest
from app.services.evidence.bom import bom
from app.services.evidence.documents import documents
from app.services.evidence.dossier import Dossier
from app.services.evidence.page import page
from app.services.evidence.statement import envelope

log = logging.getLogger(__name__)


def pack(core: Core, store: ArtifactStore, promotion_id: int, people: bool = True) -> bytes:
    """The evidence of one promotion, whatever has become of it, as a zip; the same bytes for the same state of the
    promotion and the same size of the trail. Without `people` it names nobody.

    It is held in memory as a whole: what steps leave behind is small, and models are named by their digests alone.

    Raises:
        NotFound: there is no such promotion.
        Fault: the audit trail does not hold, or a signing key cannot be read.
    """
    found = reading.read(core, promotion_id, people)
    note = trail.note_of(core.signer, found.point)
    keys = [key.text() for key in core.signer.keys(found.point.origin)]
    files = {**documents(found, note, keys), "bom.cdx.json": canonical(bom(found)), **_stored(store, found)}
    files["index.html"] = page(found, files, people).encode()
    files[MANIFEST] = manifest(files)
    files["statement.dsse.json"] = canonical(envelope(core.signer, found, files[MANIFEST]))
    return archive(files)


def _stored(store: ArtifactStore, found: Dossier) -> dict[str, bytes]:
    """What the store still has of it. What it has lost costs the pack that file: its digest stays in the evidence."""
    kept = {}
    for name, digest, read in _wanted(store, found):
        try:
            data = read()
        except (Fault, OSError) as error:
            log.warning("evidence.lost", extra={"promotion": found.id, "file": name, "reason": str(error)})
            continue
        if digest_bytes(data) == digest:
            kept[name] = data
    return kept


def _file(store: ArtifactStore, digest: str) -> bytes:
    return store.file(digest).read_bytes()


def _wanted(store: ArtifactStore, found: Dossier) -> Iterator[tuple[str, Any, Callable[[], bytes]]]:
    seen = found.evidence
    for evidence in seen.values():
        for name, digest in (evidence.get("pictures") or {}).items():
            yield f"pictures/{name}.png", digest, partial(_file, store, digest)
    tree, build = seen.get("SNAPSHOT", {}).get("tree"), seen.get("BUILD", {})
    if tree:
        yield "model-files.json", tree, partial(store.manifest, tree)
    if "repository" in build:
        repository, config = build["repository"], build["config"]
        yield "served-files.json", repository, partial(store.manifest, repository)
        yield "config.pbtxt", config, partial(_within, store, repository, f"{build['model']}/config.pbtxt")


def _within(store: ArtifactStore, tree: str, file: str) -> bytes:
    return (store.tree(tree) / file).read_bytes()
