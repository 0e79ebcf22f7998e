"""The command line of the crash harness: `python -m tests.crash --kills 200 --database postgresql --seed 7`."""

import argparse
import contextlib
import json
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

import httpx
from rich.console import Console

from app.db.migrate import upgrade
from ci.bench import report
from tests.crash.campaign import Campaign
from tests.crash.installation import ENVIRONMENT, Installation, installation
from tests.crash.lanes import Lane, People
from tests.crash.models import POLICY, register
from tests.crash.report import group
from tests.crash.tally import Tally
from tests.crash.traffic import Traffic
from tests.docker_support import docker_engine, triton_cpu_base
from tests.services import postgres, redis

LANES = 12
DATABASES = ("sqlite", "postgresql")
ROOT = Path(__file__).resolve().parents[2]
RESULTS, DOCS = ROOT / ".headgate" / "faults.json", ROOT / "docs" / "benchmarks.md"
# Not the usual temporary folder: sockets need short paths, and PostgreSQL runs as another user where we are root.
_DISK = "/var/tmp"


def campaign(database: str, kills: int, seed: int, lanes: int = LANES, docker: bool = False) -> Tally:
    """Run one campaign in a fresh installation and return what it saw; with `docker` its releases are containers."""
    tally = Tally(seed)
    models = [f"lane-{number}" for number in range(lanes)]
    with _backing(database, docker) as (folder, backing):
        policies = {model: POLICY.format(model=model) for model in models}
        with installation(folder / "i", backing, policies) as found, _people(found) as people:
            register(people.registry, folder / "artifacts", models)
            rows = [Lane(model, people, tally, Random(f"{seed} {model}")) for model in models]
            served, address = lambda: [row.model for row in rows if row.served], found.router.address(ENVIRONMENT)
            with Traffic(address, served, tally, found.note_lost_request):
                Campaign(found, rows, tally, kills, _tell).run()
            if tally.broken or tally.unanswered:
                _keep(folder)
    return tally


@contextlib.contextmanager
def _backing(database: str, docker: bool) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder and the settings of what stands in it: a migrated database, a broker (files beside SQLite, Redis beside
    PostgreSQL), and a Docker Engine where one is asked for."""
    with contextlib.ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="hg-", dir=_DISK, ignore_cleanup_errors=True))
        )
        folder.chmod(0o755)
        url, broker = f"sqlite:///{folder / 'headgate.db'}", ""
        if database == "postgresql":
            url, broker = stack.enter_context(postgres(folder)).fresh(), stack.enter_context(redis(folder))
        upgrade(url)
        backing = {"HEADGATE_DATABASE_URL": url, "HEADGATE_BROKER_URL": broker}
        if docker:
            (folder / "engine").mkdir()
            host = stack.enter_context(docker_engine(folder / "engine"))
            image = {"HEADGATE_TRITON_IMAGE": triton_cpu_base(host)}
            backing |= {"HEADGATE_TARGET": "docker", "HEADGATE_DOCKER_HOST": host, **image}
        yield folder, backing


@contextlib.contextmanager
def _people(found: Installation) -> Iterator[People]:
    with (
        httpx.Client(base_url=found.mlflow, timeout=60, trust_env=False) as registry,
        httpx.Client(base_url=found.settings.public_url, timeout=20, trust_env=False) as api,
        httpx.Client(base_url=found.settings.public_url, timeout=20, trust_env=False) as reviewer,
    ):
        api.headers["Authorization"] = f"Bearer {(found.settings.home / 'admin.token').read_text().strip()}"
        made = api.post("/api/v1/tokens", json={"name": "rita", "role": "reviewer"}).raise_for_status()
        reviewer.headers["Authorization"] = f"Bearer {made.json()['token']}"
        yield People(registry, api, reviewer)


def _tell(tally: Tally) -> None:
    counts = f"{tally.total} kills, {tally.live} live, {len(tally.broken)} promises broken"
    print(f"{time.strftime('%H:%M:%S')} {counts}", flush=True)


def _keep(folder: Path) -> None:
    """Keep the logs: a failed campaign must say more than that it failed."""
    kept = RESULTS.with_name("faults-logs")
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder / "i" / "logs", kept)
    print(f"the processes' logs are in {kept}", file=sys.stderr)


def main() -> int:
    """Run the campaigns that are asked for; returns 1 where any promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="how many processes to kill on each database")
    parser.add_argument("--database", choices=DATABASES, action="append", help="default: both")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31), help="replays the order of the kills")
    parser.add_argument("--docker", action="store_true", help="releases are containers of a real Docker Engine")
    parser.add_argument("--write-docs", action="store_true", help=f"put the table into {DOCS.name}")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    about, found = report.machine(), {}
    for database in given.database or DATABASES:
        lanes = 3 if given.docker else LANES
        tally = found[database] = campaign(database, given.kills, given.seed, lanes, given.docker)
        for sentence in tally.broken:
            print(f"BROKEN on {database}: {sentence}", flush=True)
        _keep_results(found)
    table = group(found)
    report.show(Console(highlight=False, width=None if sys.stdout.isatty() else 160), table)
    if given.write_docs:
        report.write_docs(DOCS, about, [table])
    return 1 if any(tally.broken for tally in found.values()) else 0


def _keep_results(found: Mapping[str, Tally]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({name: tally.as_json() for name, tally in found.items()}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
