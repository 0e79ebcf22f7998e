"""What must be true whatever died: read from the database, the router, the process table and MLflow."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import httpx
from sqlalchemy import select

from app.db.models import AuditLeaf, StepRun
from app.domain.promotion import FLOW
from app.services import history, trail
from tests.crash.installation import ENVIRONMENT, Installation
from tests.crash.lanes import Lane
from tests.crash.models import request, version_that_answers
from tests.crash.tally import Tally

_PATH = [(before.value, after.value) for before, after in itertools.pairwise(FLOW)]


def check(installation: Installation, lanes: Iterable[Lane], tally: Tally) -> None:
    """Check everything that must hold while nothing is under way."""
    served = [lane for lane in lanes if lane.served]
    tally.doubled.extend(_doubled_steps(installation))
    running = installation.servers()
    for lane in served:
        tally.untrue.extend(_untrue(installation, lane, running))
    expected = {
        row["name"]
        for row in history.serving(installation.database, None, ENVIRONMENT, None)
        if row["role"] != "retired"
    }
    tally.untrue.extend(f"{name} runs and serves nothing" for name in running.keys() - expected)
    verdict = trail.verify(installation.database)
    if not verdict.verified:
        tally.untrue.append(f"the audit trail does not verify: {verdict}")


def _untrue(installation: Installation, lane: Lane, running: Counter[str]) -> Iterator[str]:
    """The database, the router, the process table, MLflow and the served numbers must tell one truth."""
    stable = [
        row
        for row in history.serving(installation.database, lane.model, ENVIRONMENT, None)
        if row["role"] in ("stable", "canary")
    ]
    if [(row["role"], row["version"]) for row in stable] != [("stable", lane.served)]:
        yield f"{lane.model}: {lane.served} was live, the database has {stable}"
        return
    if running[stable[0]["name"]] != 1:
        yield f"{lane.model}: {running[stable[0]['name']]} servers run as {stable[0]['name']}"
    status = installation.router.status(lane.model, ENVIRONMENT)
    if (dict(status.weights), dict(status.up)) != ({"stable": 100}, {"stable": True}):
        yield f"{lane.model}: the router has {status}"
    aliases = lane.people.aliases(lane.model)
    if aliases != {ENVIRONMENT: lane.served}:
        yield f"{lane.model}: MLflow has the aliases {aliases}, {lane.served} serves"
    yield from _answers(installation, lane)


def _answers(installation: Installation, lane: Lane) -> Iterator[str]:
    url = f"{installation.router.address(ENVIRONMENT)}/v2/models/{lane.model}/infer"
    answer = httpx.post(url, json=request(), timeout=20, trust_env=False)
    if answer.status_code != httpx.codes.OK:
        yield f"{lane.model}: the router answers {answer.status_code}: {answer.text[:200]}"
        return
    release = answer.headers.get("X-Headgate-Release", "")
    if version_that_answers(answer) != lane.served or not release.startswith(f"{lane.served}@"):
        yield f"{lane.model}: {release} answers {answer.text[:200]}, {lane.served} is live"


def _doubled_steps(installation: Installation) -> Iterator[str]:
    """Each transition is written once; a promotion that was quarantined and tried again walks its path anew."""
    with installation.database.read() as session:
        leaves: Sequence[AuditLeaf] = session.scalars(select(AuditLeaf).order_by(AuditLeaf.seq)).all()
        steps = session.execute(select(StepRun.promotion_id, StepRun.state)).all()
    tries, moves = Counter[int](), Counter[tuple[int, str, str]]()
    for leaf in leaves:
        if leaf.kind == "promotion.transition":
            moves[leaf.body["promotion"], leaf.body["from"], leaf.body["to"]] += 1
        elif leaf.kind in ("promotion.requested", "promotion.retry"):
            tries[leaf.body["promotion"]] += 1
    for (promotion, before, after), count in moves.items():
        if (before, after) in _PATH and count > tries[promotion]:
            yield f"promotion {promotion} went from {before} to {after} {count} times"
    for (promotion, state), count in Counter((row.promotion_id, row.state) for row in steps).items():
        if count > tries[promotion]:
            yield f"promotion {promotion} has {count} records of {state}"
