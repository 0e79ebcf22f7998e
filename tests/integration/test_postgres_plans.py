"""What the engine asks of PostgreSQL again and again is found by an index, however long a history lies beside it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from app.db.migrate import upgrade
from app.db.session import Database
from app.domain.policy import Approvals, Rollout, default_policy
from app.services import releases
from tests.fakes import quick
from tests.plant import MODEL, World
from tests.services import postgres
from workers.tasks import Desk

# Other people's promotions that have ended, with all that they left; every tenth is of the model that is asked for.
# PostgreSQL may keep a plan that was made without looking at the values: here it always does.
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
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET plan_cache_mode = force_generic_plan', current_database()); END $$;
"""
NO_SOAK = Rollout(soak=timedelta(0))
BIG = ("promotions", "step_runs", "releases", "outbox")
READ = "SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_user_tables WHERE relname = ANY(:tables)"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres(tmp_path_factory.mktemp("postgres")) as server:
        fresh = server.fresh()
        upgrade(fresh)
        database = Database(fresh)
        with database.begin() as session:
            session.connection().exec_driver_sql(HISTORY, execution_options={"no_parameters": True})
        database.close()
        yield fresh


def rows_read(url: str) -> int:
    """How many rows of the big tables were read so far. A process of PostgreSQL reports when its client leaves."""
    database = Database(url)
    with database.read() as session:
        read = int(session.execute(text(READ), {"tables": list(BIG)}).scalar_one())
    database.close()
    return read


def promote(database: Database, folder: Path, rounds: int) -> None:
    world = World(database, folder)
    world.policies.known[MODEL] = quick(default_policy(MODEL), approvals=Approvals(required=0), rollout=NO_SOAK)
    desk = Desk(world.core, world.plant, world.runner, "worker-1", ("http://headgate/webhooks/mlflow", "secret"), 30)
    for number in range(rounds):
        assert world.run(world.ask("1" if number % 2 else "2"))["state"] == "LIVE"
        desk.sweep()
        desk.tend()
        releases.canary_lease_holds(database, MODEL, "production")


def test_a_long_history_costs_the_engine_nothing(url: str, tmp_path: Path) -> None:
    before = rows_read(url)
    database = Database(url)
    promote(database, tmp_path, 8)  # often enough that the driver has PostgreSQL keep its plans
    database.close()
    # Less than a thousand rows a promotion; whoever read one of the tables once would read 20,000.
    assert rows_read(url) - before < 10_000
