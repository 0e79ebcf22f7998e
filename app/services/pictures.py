"""The pictures that steps left beside their evidence."""

from app.db import promotions
from app.domain.digests import digest_bytes
from app.domain.errors import Fault, NotFound
from app.parts import Core
from app.ports import ArtifactStore


def picture(core: Core, store: ArtifactStore, promotion_id: int, name: str) -> bytes:
    """One picture of a promotion, as PNG.

    Raises:
        NotFound: there is no such promotion, or no such picture of it; the remedy names those that there are.
        Fault: the store has lost it, or holds something else.
    """
    with core.db.read() as session:
        if promotions.get(session, promotion_id) is None:
            raise NotFound(f"There is no promotion {promotion_id}.", "See `headgate status`.")
        evidence = promotions.evidence(session, promotion_id)
    known = {name: digest for step in evidence.values() for name, digest in step.get("pictures", {}).items()}
    if name not in known:
        there = f"It has: {', '.join(sorted(known))}." if known else "Its steps have drawn none (yet)."
        raise NotFound(f"Promotion {promotion_id} has no picture {name!r}.", there)
    data = store.file(known[name]).read_bytes()
    if digest_bytes(data) != known[name]:
        raise Fault(
            f"The stored picture {name} of promotion {promotion_id} was changed.", "Restore the artifact store."
        )
    return data
