"""Who waits for whom at the end: a worker's deadline lies below the patience of whoever would kill it."""

from pathlib import Path

import yaml

from app.supervisor import STOP_SECONDS
from workers.shutdown import DRAIN_SECONDS

COMPOSE = Path(__file__).resolve().parents[2] / "compose" / "docker-compose.yml"


def test_a_worker_ends_before_it_is_killed_and_a_container_that_ended_starts_again() -> None:
    worker = yaml.safe_load(COMPOSE.read_text())["services"]["worker"]
    assert DRAIN_SECONDS < STOP_SECONDS
    assert float(worker["stop_grace_period"].removesuffix("s")) > DRAIN_SECONDS
    assert worker["restart"] == "unless-stopped"
