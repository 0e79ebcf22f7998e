"""SNAPSHOT: copy the model and the judging rows once; every later step names their digests."""

import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from app.domain.errors import Fault, Rejected
from app.domain.promotion import Done, Outcome
from workers.context import Context


def run(context: Context) -> Outcome:
    """Raises Rejected for a missing version or artifact, Fault for missing judging rows and for an environment that the
    router does not have: better now than after a reviewer has spent time on it."""
    context.plant.router.address(context.environment)
    info = context.registry.version(context.model, context.version)
    if info is None:
        raise Rejected(
            f"MLflow no longer has version {context.version} of {context.model}.", "Register it again and ask anew."
        )
    scratch = context.plant.store.scratch(f"promotion-{context.promotion_id}-model")
    try:
        context.registry.download(context.model, context.version, scratch)
        tree = context.plant.store.put_tree(scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    evidence: dict[str, Any] = {"tree": tree, "run_id": info.run_id, "trained_by": info.user}
    if context.policy.data is not None:
        evidence["data"] = context.plant.store.put_file(_local_file(context.policy.data.uri))
    return Done(evidence)


def _local_file(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file"):
        raise Fault(f"data.uri has the scheme {parts.scheme!r}.", "Name a CSV file that the workers can read.")
    path = Path(unquote(parts.path))
    if not path.is_file():
        raise Fault(f"The judging rows {uri} are not there.", "Put the CSV file where data.uri of the policy says.")
    return path
