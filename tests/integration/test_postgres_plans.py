"""What the engine asks of PostgreSQL again and again is found by an index, however much lies behind it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from app.db.migrate import upgrade
from app.db.session import Database
from app.domain.policy import Rollout, default_policy
from app.services import releases
from tests.fakes import quick
from tests.plant import MODEL, World
from tests.services import postgres
from workers.tasks import Desk

# Other people's promotions that have ended, with all that they left; every tenth is of the model that is asked for.
HISTORY = """
CREATE TEMPORARY TABLE ended AS SELECT i AS id, CASE WHEN i % 10 = 0 THEN 'airbnb-price' ELSE 'model-' || i % 100 END
  AS model FROM generate_series(1001, 21000) i;
INSERT INTO promotions (id, model, version, environment, state, reason, trigger, request_reason, policy, policy_digest,
    progress, created_at, updated_at, attempt, crashes, last_error, lease_epoch)
  SELECT id, model, '1', 'production', 'LIVE', '', '{}', '', '{}', 'd', '{}', now(), now(), 0, 0, '', 1 FROM ended;
INSERT INTO step_runs (promotion_id, state, entered_at, finished_at, evidence)
  SELECT id, 'LIVE', now(), now(), '{}' FROM ended;
INSERT INTO releases (promotion_id, model, version, environment, digest, name, spec, role, weight, created_at,
    stable_at, retired_at)
  SELECT id, model, '1', 'production', 'd', 'n', '{"target": "process", "name": "n"}', 'retired', 0, now(), now(),
    now() FROM ended;
INSERT INTO outbox (model, operation, arguments, created_at, attempts, done_at, last_error)
  SELECT model, 'set_tag', '{"version": "1", "key": "k", "value": "v"}', now(), 0, now(), '' FROM ended;
ANALYZE;
"""
BIG = ("promotions", "step_runs", "releases", "outbox")
SCANS = "SELECT relname, seq_scan FROM pg_stat_user_tables WHERE relname = ANY(:tables)"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres(tmp_path_factory.mktemp("postgres")) as server:
        fresh = server.fresh()
        upgrade(fresh)
        yield fresh


def sequential_scans(url: str) -> dict[str, int]:
    """How often each big table was read from end to end. A process of PostgreSQL reports when its client leaves."""
    database = Database(url)
    with database.read() as session:
        found = dict(session.execute(text(SCANS), {"tables": list(BIG)}).tuples().all())
    database.close()
    return found


def promote(database: Database, folder: Path, rounds: int) -> None:
    world = World(database, folder)
    world.policies.known[MODEL] = quick(default_policy(MODEL), rollout=Rollout(soak=world.runner._timing.tick))
    desk = Desk(world.core, world.plant, world.runner, "worker-1", ("http://headgate/webhooks/mlflow", "secret"))
    for number in range(rounds):
        assert world.run(world.ask("1" if number % 2 else "2"))["state"] == "LIVE"
        desk.sweep()
        desk.tend()
        releases.canary_lease_holds(database, MODEL, "production")


def test_no_table_with_a_history_is_read_from_end_to_end(url: str, tmp_path: Path) -> None:
    database = Database(url)
    with database.begin() as session:
        session.connection().exec_driver_sql(HISTORY, execution_options={"no_parameters": True})
    before = sequential_scans(url)
    promote(database, tmp_path, 12)  # often enough that PostgreSQL plans without looking at the values
    database.close()
    assert sequential_scans(url) == before
