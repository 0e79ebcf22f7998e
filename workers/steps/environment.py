"""The packages that CONVERT loads a model with: Headgate's own where they are alike, else its logged versions."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from app.domain.environments import CONVERTERS, Wanted, additions
from app.domain.errors import Rejected
from app.domain.promotion import State, Wait
from app.requirements import Logged, read
from workers.context import Context

_OFF = "HEADGATE_ENVIRONMENTS is off: the model was loaded with Headgate's own packages, whatever it was logged with."


@dataclass(frozen=True)
class Loading:
    """What the sandbox loads the model with: a folder of packages, None for Headgate's own; and what is recorded."""

    folder: Path | None
    evidence: Mapping[str, Any]


def of_model(context: Context) -> Loading | Wait:
    """The packages of this model, built where they were not built before; a Wait first, which tells that this begins.

    Raises:
        Rejected: it asks for what is not allowed, or for what cannot be installed here.
        Transient: the package index is away.
        Fault: the environment cannot be kept.
    """
    allowed = context.plant.environment_packages
    if allowed is None:
        return Loading(None, {"own": False, "note": _OFF, "packages": _installed(_programs(()))})
    logged = read(context.plant.store.tree(context.step(State.SNAPSHOT)["tree"]), allowed)
    names = [requirement.name for requirement in logged.requirements]
    own = _installed({*names, *_programs(names, logged.flavor)})
    unmet = logged.unmet(own)
    if logged.flavor is None or not unmet:
        return Loading(None, {"own": False, "note": _why_not(logged), "packages": own, **_said(logged)})
    wanted = Wanted((*map(str, logged.requirements), *additions(logged.flavor, names)), own)
    return _built(context, wanted, logged, unmet)


def _built(context: Context, wanted: Wanted, logged: Logged, unmet: Sequence[str]) -> Loading | Wait:
    start = time.monotonic()
    environment = context.plant.environments.find(wanted)
    reused = environment is not None
    if environment is None:
        if not context.progress:
            asked = ", ".join(map(str, logged.requirements))
            return Wait(timedelta(0), {"note": f"the model's own environment is built: {asked}"})
        try:
            environment = context.plant.environments.build(wanted)
        except Rejected as error:
            raise Rejected(f"{error.reason} {_python_words(logged)}".strip(), error.remedy) from error
    evidence = {
        "own": True,
        "digest": environment.digest,
        "packages": dict(environment.packages),
        "reused": reused,
        "seconds": round(time.monotonic() - start, 2),
        "note": f"The model was logged with {'; '.join(unmet)}.",
        **_said(logged),
    }
    return Loading(environment.folder, evidence)


def _programs(names: Sequence[str], flavor: str | None = None) -> set[str]:
    """The packages that Headgate's programs stand on, and those that convert."""
    return {Requirement(line).name for line in additions(flavor or "sklearn", names)} | CONVERTERS


def _installed(names: set[str]) -> dict[str, str]:
    """Headgate's own versions of those that it has: what models are loaded with in its own environment."""
    found = {}
    for name in sorted(names):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _why_not(logged: Logged) -> str:
    if logged.flavor is None:
        return "MLmodel names no flavor that packages load."
    return "Headgate's own packages are alike to those that the model was logged with."


def _said(logged: Logged) -> dict[str, Any]:
    return {
        "logged": [str(requirement) for requirement in logged.requirements],
        "left_out": list(logged.left_out),
        "logged_in": logged.source,
        "python": logged.python,
    }


def _python_words(logged: Logged) -> str:
    return f"It was logged with Python {logged.python}." if logged.python else ""
