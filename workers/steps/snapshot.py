"""SNAPSHOT: copy the model and the judging rows once; every later step names their digests."""

from typing import Any

from app.domain.errors import Rejected, Transient
from app.domain.people import Person
from app.domain.promotion import Done, Outcome
from workers.context import Context
from workers.steps.copying import copy_rows


def run(context: Context) -> Outcome:
    """Copy what the version is made of.

    Raises:
        Rejected: the version or its artifacts are missing.
        Transient: the version is not ready.
        Fault: the judging rows are missing, or the router does not have the environment: better told now than after a
            reviewer has spent time on it.
    """
    context.plant.router.address(context.environment)
    info = context.registry.version(context.model, context.version)
    if info is None:
        raise Rejected(
            f"MLflow no longer has version {context.version} of {context.model}.", "Register it again and ask anew."
        )
    if not info.ready:
        raise Transient(
            f"Version {context.version} of {context.model} is not ready in MLflow.", "It is waited for; see MLflow."
        )
    with context.scratch("model") as folder:
        context.registry.download(context.model, context.version, folder)
        tree = context.plant.store.put_tree(folder)
    evidence: dict[str, Any] = {
        "tree": tree,
        "source": info.source,
        "run_id": info.run_id,
        "trained_by": Person(info.user) if info.user else None,
    }
    if context.policy.data is not None:
        evidence |= copy_rows(context, context.policy.data)
    return Done(evidence)
