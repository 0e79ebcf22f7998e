"""Whether the registry still holds what was taken in. It changes nothing: what is judged and served is the own copy."""

from pathlib import Path

from app.domain.errors import Fault, Rejected, Transient
from app.domain.promotion import State
from workers.context import Context

MAX_BYTES = 256 << 20
SAME = "as it was taken in"
_OURS = "What is judged and served is what was taken in before."


def since_intake(context: Context) -> tuple[str, str]:
    """What MLflow holds of the version now: for the record, and for people where it has changed (else empty).

    The artifacts are copied and hashed once more and thrown away; of a model of more than MAX_BYTES only the source is
    compared. A registry that cannot be asked is no reason to wait: it was asked at intake.
    """
    size = _bytes(context.plant.store.tree(context.step(State.SNAPSHOT)["tree"]))
    try:
        changed = _change(context, size <= MAX_BYTES)
    except (Transient, Fault) as error:
        return f"not compared: {error.reason}", ""
    except Rejected as error:
        changed = f"This version's artifacts cannot be read from MLflow any more: {error.reason}"
    if changed:
        told = f"{changed} {_OURS}"
        return told, told
    return (SAME if size <= MAX_BYTES else f"compared by its source only: it has more than {MAX_BYTES} bytes"), ""


def _change(context: Context, read: bool) -> str:
    taken = context.step(State.SNAPSHOT)
    info = context.registry.version(context.model, context.version)
    if info is None:
        return "MLflow no longer has this version."
    # A promotion that was under way when Headgate was updated has no source on record.
    if info.source != taken.get("source", info.source):
        return "Since then MLflow has moved this version to other artifacts."
    if not read:
        return ""
    with context.scratch("again") as folder:
        context.registry.download(context.model, context.version, folder)
        digest = context.plant.store.digest_of(folder)
    return "" if digest == taken["tree"] else "This version's artifacts in MLflow have been replaced."


def _bytes(tree: Path) -> int:
    return sum(file.stat().st_size for file in tree.rglob("*") if file.is_file())
