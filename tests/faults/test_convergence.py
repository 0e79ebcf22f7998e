"""People, lost webhooks, cut answers and kill -9, with a real MLflow server: in the end both sides say the same.

CONVERGENCE_SECONDS makes the disorder last longer than its few seconds, CONVERGENCE_SEED makes it another one.
"""

import itertools
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import update

from app.db.models import ChangeRow
from app.db.session import now
from app.services import history, trail
from app.services.deliveries import GRACE
from tests.convergence import checks
from tests.convergence.people import MODELS, Crowd, Hand
from tests.convergence.rig import Mortal, Rig, rig

pytestmark = pytest.mark.on("postgresql")

SECONDS = float(os.environ.get("CONVERGENCE_SECONDS", "20"))
SEED = int(os.environ.get("CONVERGENCE_SEED", "20261123"))
QUIET = ("quiet-1", "quiet-2", "quiet-3")
# A recovered request is opened by a poll that comes this much later.
SETTLED = 6.0


@pytest.fixture(scope="module")
def installation(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig(tmp_path_factory.mktemp("convergence"), new_database(), SEED) as found:
        hand = Hand(found.mlflow_uri, found.source)
        for model in (*MODELS, *QUIET):
            assert hand.register(model)
        for model in QUIET:
            assert hand.alias(model, "champion", "1")
            assert hand.stage(model, "2", "Archived", archive=False)
            assert hand.tag(model, "3", "moon")
        checks.wait_for_rest(found)
        yield found


@pytest.fixture
def calm(installation: Rig) -> Rig:
    """The rig at rest, with nothing lost on the way."""
    post, wire = installation.post, installation.wire
    post.lost = post.doubled = post.late = wire.cut = 0.0
    wire.meddle = lambda method, path, body: None
    checks.wait_for_rest(installation)
    return installation


def disorder(found: Rig, rng: random.Random) -> None:
    """Kill processes in turn, and let each be away for a moment; while MLflow starts again people can do nothing."""
    end = time.monotonic() + SECONDS
    for turn in itertools.count():
        if time.monotonic() > end:
            return
        victim: Mortal = found.mlflow if turn % 8 == 3 else rng.choice((found.worker, found.receiver))
        time.sleep(rng.uniform(1, 3))
        victim.kill()
        time.sleep(rng.uniform(0, 1))
        victim.start()


def test_after_any_disorder_both_sides_say_the_same(calm: Rig) -> None:
    sys.stdout.write(f"CONVERGENCE_SEED={SEED}\n")
    # Given people who do what they like, while webhooks and answers get lost, and a person who moves aliases just as
    # we delete them,
    rng, crowd = random.Random(SEED), Crowd(Hand(calm.mlflow_uri, calm.source), SEED)
    calm.post.lost, calm.post.doubled, calm.post.late, calm.wire.cut = 0.3, 0.2, 2.0, 0.05
    calm.wire.meddle = hasty(calm, crowd, rng)
    people = crowd.start(3)
    # when processes are killed meanwhile,
    disorder(calm, rng)
    crowd.stopping.set()
    for person in people:
        person.join()
    calm.wire.cut = 0.0
    # then both sides agree once all has come to rest; whoever asked got an answer, once.
    checks.wait_for_rest(calm, quiet=SETTLED)
    checks.check_chain(calm)
    checks.check_promotions(calm, crowd)
    checks.check_webhooks(calm)
    # What nobody touched never looked deleted, or in any way different.
    for model in QUIET:
        lines = history.changes(calm.database, model, None)["items"]
        assert sorted(row["after"] for row in lines) == ["1", "Archived", "moon"], lines
    assert trail.verify(calm.database).verified
    assert crowd.done.total() > SECONDS


def hasty(found: Rig, crowd: Crowd, rng: random.Random) -> Callable[[str, str, dict[str, Any]], None]:
    hand = Hand(found.mlflow_uri, found.source)

    def meddle(method: str, path: str, body: dict[str, Any]) -> None:
        alias = str(body.get("alias", ""))
        if (method, path.rpartition("/mlflow/")[2]) == ("DELETE", "registered-models/alias") and rng.random() < 0.3:
            version = rng.choice(("1", "2", "3"))
            crowd.asked[version, alias.removeprefix("to-")] += 1
            hand.alias(body["name"], alias, version)

    return meddle


def test_the_ledger_counts_exactly_the_webhooks_that_never_came(calm: Rig) -> None:
    # Given changes one after the other, each seen before the next,
    rng, hand, model = random.Random(f"counting {SEED}"), Hand(calm.mlflow_uri, calm.source), "counted"
    assert hand.register(model)
    checks.wait_for_rest(calm)
    before, lost = checks.missing(calm), calm.post.dropped.total()
    calm.post.lost, calm.post.doubled, calm.post.late = 0.4, 0.3, 0.5
    turns = {"champion": 0, "to-staging": 0, "tag": 0}
    for _ in range(max(8, int(SECONDS / 3))):
        mark = rng.choice(list(turns))
        turns[mark] += 1  # what is set to what it was is told by a webhook, too, and is no change
        if mark == "tag":
            assert hand.tag(model, "1", f"planet {turns[mark]}")
        else:
            assert hand.alias(model, mark, str(turns[mark] % 3 + 1))
        checks.wait_for_rest(calm)
    # then as many webhooks are missing as were dropped of those that say something about a watched field.
    assert checks.missing(calm) - before == calm.post.dropped.total() - lost > 0
    with calm.database.begin() as session:
        session.execute(update(ChangeRow).values(seen_at=now(session) - 2 * GRACE))
    counts: Any = calm.changes()["counts"]
    assert counts["missing"] == checks.missing(calm)


@pytest.mark.parametrize("mark", ["alias", "tag"])
def test_a_request_that_falls_into_our_clean_up_is_opened(calm: Rig, mark: str) -> None:
    # Given a promotion that ends, and a person who changes the mark between our look at it and our deletion,
    hand, model = Hand(calm.mlflow_uri, calm.source), f"hasty-{mark}"
    assert hand.register(model)
    checks.wait_for_rest(calm)
    path = {"alias": "registered-models/alias", "tag": "model-versions/delete-tag"}[mark]
    moved: list[bool] = []

    def meddle(method: str, called: str, body: dict[str, Any]) -> None:
        if method == "DELETE" and called.endswith(path) and body["name"] == model and not moved:
            moved.append(
                hand.alias(model, "to-staging", "2") if mark == "alias" else hand.tag(model, "1", "production")
            )

    calm.wire.meddle = meddle
    if mark == "alias":
        hand.alias(model, "to-staging", "1")
    else:
        hand.tag(model, "1", "staging")
    # when all has come to rest, then what he asked for is live, though MLflow holds no trace of it.
    checks.wait_for_rest(calm, quiet=SETTLED)
    assert moved == [True]
    serves = {(row["environment"], row["version"]) for row in history.serving(calm.database, model, None, None)}
    assert serves == ({("staging", "2")} if mark == "alias" else {("staging", "1"), ("production", "1")})
    checks.check_chain(calm)


def test_a_request_that_a_person_takes_back_during_our_clean_up_is_not_opened(calm: Rig) -> None:
    hand, model, moved = Hand(calm.mlflow_uri, calm.source), "fickle", list[bool]()
    assert hand.register(model)
    checks.wait_for_rest(calm)

    def meddle(method: str, called: str, body: dict[str, Any]) -> None:
        if method == "DELETE" and called.endswith("registered-models/alias") and body["name"] == model and not moved:
            moved.extend((hand.alias(model, "to-staging", "2"), hand.alias(model, "to-staging", None)))

    calm.wire.meddle = meddle
    hand.alias(model, "to-staging", "1")
    checks.wait_for_rest(calm, quiet=SETTLED)
    assert moved == [True, True]
    found = history.search(calm.database, model, None, None, None)["items"]
    assert [(row["version"], row["state"]) for row in found] == [("1", "LIVE")]
