"""Whether the registry still holds what was taken in. It changes nothing: what is judged and served is the own copy."""

from pathlib import Path

from app.domain.errors import Rejected, Transient
from app.domain.promotion import State
from workers.context import Context

MAX_BYTES = 256 << 20
_OURS = "What is judged and served is what was taken in before."


def since_intake(context: Context) -> str | None:
    """What has changed about the version in MLflow, for people; None where nothing has, or nobody can tell.

    The artifacts are copied and hashed once more and thrown away; of a model of more than MAX_BYTES only the source is
    compared.
    """
    taken = context.step(State.SNAPSHOT)
    try:
        info = context.registry.version(context.model, context.version)
        if info is None:
            return f"MLflow no longer has this version. {_OURS}"
        if info.source != taken.get("source", info.source):
            return f"Since then MLflow has moved this version to other artifacts. {_OURS}"
        if _bytes(context.plant.store.tree(taken["tree"])) > MAX_BYTES:
            return None
        with context.scratch("again") as folder:
            context.registry.download(context.model, context.version, folder)
            digest = context.plant.store.digest_of(folder)
    except Transient:
        return None
    except Rejected as error:
        return f"This version's artifacts cannot be read from MLflow any more: {error.reason} {_OURS}"
    return None if digest == taken["tree"] else f"This version's artifacts in MLflow have been replaced. {_OURS}"


def _bytes(tree: Path) -> int:
    return sum(file.stat().st_size for file in tree.rglob("*") if file.is_file())
