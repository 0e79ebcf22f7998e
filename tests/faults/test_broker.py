"""A Redis that dies, forgets, is full, hangs or hangs up: promotions go on, and the API answers all the while."""

import contextlib
import functools
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import pytest
from celery import Celery

from app.adapters.celery_queue import make_app
from examples.airbnb.stage import Stage, signed, wait
from tests.e2e.models import register
from tests.services import RedisServer, redis_server
from workers.shutdown import DRAIN_SECONDS

pytestmark = pytest.mark.on("postgresql")

MODEL = "wakeful"
POLICY = f"""\
model: {MODEL}
environments:
  staging:
    approvals: {{required: 0}}
    rollout: {{steps: [50, 100], soak: 1s, guardrails: {{min_requests: 1, p99_ms: 10000}}, max_wait: 120s}}
"""
WORKERS = ("worker-1", "worker-2")
LIMIT = 180


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("broker")) as server:
        yield server


@pytest.fixture(scope="module")
def stage(
    broker: RedisServer, backing: Callable[[], dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    home = tmp_path_factory.mktemp("broken")
    (home / "policies").mkdir()
    (home / "policies" / f"{MODEL}.yaml").write_text(POLICY)
    with Stage(home / "up", home / "policies", backing() | {"HEADGATE_BROKER_URL": broker.url}) as running:
        yield running


@pytest.fixture
def celery(broker: RedisServer, stage: Stage) -> Iterator[Celery]:
    """A person's view on the workers."""
    app = make_app(broker.url, str(stage.home))
    yield app
    app.close()


@pytest.fixture(autouse=True)
def answers(stage: Stage) -> Iterator[list[int]]:
    """What the API answers to webhooks and to readers while a test runs: it always does, and takes everything."""
    seen: list[int] = []
    done = threading.Event()
    thread = threading.Thread(target=_ask, args=(stage, seen, done))
    thread.start()
    yield seen
    done.set()
    thread.join()
    assert set(seen) == {200, 202}


def _ask(stage: Stage, seen: list[int], done: threading.Event) -> None:
    secret = (stage.home / "webhook.secret").read_text().strip()
    event = {"entity": "model_version_alias", "action": "created", "timestamp": "2026-01-01T00:00:00Z"}
    body = json.dumps({**event, "data": {"name": "nobody", "alias": "to-staging", "version": "1"}}).encode()
    with httpx.Client(base_url=stage.found["api"], timeout=15, trust_env=False) as client:
        while not done.wait(0.5):
            try:
                seen.append(client.get("/readyz").status_code)
                seen.append(client.post("/webhooks/mlflow", content=body, headers=signed(secret, body)).status_code)
            except httpx.TransportError:
                seen.append(0)


def ask(stage: Stage) -> str:
    """Somebody asks in MLflow; returns the version."""
    version = register(stage.mlflow_uri, MODEL)
    stage.mlflow.set_registered_model_alias(MODEL, "to-staging", version)
    return version


def shown(stage: Stage, version: str) -> dict[str, Any]:
    items = stage.admin.get("/api/v1/promotions", model=MODEL)["items"]
    number = next((row["id"] for row in items if row["version"] == version), None)
    found: dict[str, Any] = stage.admin.get(f"/api/v1/promotions/{number}") if number else {"state": ""}
    return found


def reached(stage: Stage, version: str, *states: str) -> dict[str, Any]:
    """Wait for a state, as a client of the model: a canary waits for some requests."""
    url = f"{stage.found['router']['staging']}/v2/models/{MODEL}/infer"
    body = {"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP32", "data": [3.0, 4.0]}]}

    def found() -> dict[str, Any] | None:
        httpx.post(url, json=body, timeout=10, trust_env=False)
        row = shown(stage, version)
        return row if row["state"] in states else None

    row: dict[str, Any] = wait(found, LIMIT, f"{states} of version {version}")
    return row


def live_once(stage: Stage, version: str) -> dict[str, Any]:
    """The version goes live, each of its steps was recorded once, and MLflow is told."""
    row = reached(stage, version, "LIVE", "FAILED", "ROLLED_BACK", "REJECTED")
    assert row["state"] == "LIVE", row["reason"]
    states = [step["state"] for step in row["steps"]]
    assert len(states) == len(set(states))
    wait(lambda: stage.aliases(MODEL).get("staging") == version, 60, "the alias staging")
    return row


def answering(celery: Celery) -> dict[str, str]:
    """The workers that take a message that is sent to all of them and answer it: their names by what we call them."""
    with celery.connection_for_write() as connection:  # a new one: those in the pool may have been hung up on
        answers = celery.control.ping(timeout=2, connection=connection) or []
    return {name.partition("@")[0]: name for answer in answers for name in answer}


def all_answer(celery: Celery) -> None:
    wait(lambda: answering(celery).keys() >= set(WORKERS), LIMIT, "the workers' answers")


def test_without_a_broker_promotions_go_live_and_with_its_return_workers_listen_again(
    stage: Stage, broker: RedisServer, celery: Celery
) -> None:
    # Given a promotion on its way, when the broker is killed and stays away,
    version = ask(stage)
    reached(stage, version, "SNAPSHOT", "SCAN", "CONVERT", "GATES", "BUILD", "PROVE", "ROLLOUT")
    broker.kill()
    # then it goes live, and so does one that is asked for now.
    live_once(stage, version)
    before = {name: stage.pid(name) for name in WORKERS}
    live_once(stage, ask(stage))
    # When the broker is back, then the workers listen to it without having been restarted.
    broker.start()
    all_answer(celery)
    assert {name: stage.pid(name) for name in WORKERS} == before


def restarted(stage: Stage, worker: str, before: int) -> bool:
    """Whether a worker has ended, and another process has taken its place."""
    return stage.pid(worker) != before


def forget(broker: RedisServer) -> None:
    broker.say("FLUSHALL")


def hang_up(broker: RedisServer) -> None:
    broker.say("CLIENT", "KILL", "TYPE", "normal")


@pytest.mark.parametrize("trouble", [forget, hang_up])
def test_a_broker_that_forgets_all_or_hangs_up_costs_nothing(
    stage: Stage, broker: RedisServer, celery: Celery, trouble: Callable[[RedisServer], None]
) -> None:
    version = ask(stage)
    reached(stage, version, "SCAN", "CONVERT", "GATES", "BUILD", "PROVE", "ROLLOUT")
    trouble(broker)
    live_once(stage, version)
    all_answer(celery)


def test_a_broker_that_is_full_delays_nobody_for_long(stage: Stage, broker: RedisServer) -> None:
    version = ask(stage)
    reached(stage, version, "SCAN", "CONVERT", "GATES", "BUILD", "PROVE", "ROLLOUT")
    broker.say("CONFIG", "SET", "maxmemory", 1)
    try:
        live_once(stage, version)
        live_once(stage, ask(stage))
    finally:
        broker.say("CONFIG", "SET", "maxmemory", 0)


def test_a_broker_that_hangs_delays_nobody_for_long(stage: Stage, broker: RedisServer, celery: Celery) -> None:
    version = ask(stage)
    reached(stage, version, "SCAN", "CONVERT", "GATES", "BUILD", "PROVE", "ROLLOUT")
    broker.signal(signal.SIGSTOP)
    try:
        live_once(stage, version)
        live_once(stage, ask(stage))
    finally:
        broker.signal(signal.SIGCONT)
    all_answer(celery)


def test_a_worker_that_lives_but_hears_nothing_is_started_anew(stage: Stage, celery: Celery) -> None:
    # Given a worker that no longer takes what is sent to it, while it lives and its connection stands,
    all_answer(celery)
    name = answering(celery)["worker-1"]
    before = {worker: stage.pid(worker) for worker in WORKERS}
    for queue in ("headgate", f"{name}.dq2"):
        celery.control.cancel_consumer(queue, destination=[name], reply=True)
    # when it notices, then another process takes its place, which takes messages; its neighbour hears and stays.
    wait(lambda: restarted(stage, "worker-1", before["worker-1"]), LIMIT, "another worker-1")

    def listens() -> bool:
        found = celery.control.inspect([name], timeout=2).active_queues() or {}
        return {queue["name"] for queue in found.get(name, [])} == {"headgate", f"{name}.dq2"}

    wait(listens, LIMIT, "its queues")
    assert stage.pid("worker-2") == before["worker-2"]
    live_once(stage, ask(stage))


def test_workers_that_are_told_to_stop_in_the_middle_of_a_step_lose_nothing(stage: Stage) -> None:
    version = ask(stage)
    reached(stage, version, "CONVERT", "GATES", "BUILD", "PROVE", "ROLLOUT")
    for worker in WORKERS:
        told = stage.pid(worker)
        os.kill(told, signal.SIGTERM)
        wait(functools.partial(restarted, stage, worker, told), DRAIN_SECONDS + 30, f"another {worker}")
    live_once(stage, version)


@contextlib.contextmanager
def hanging(pid: int) -> Iterator[None]:
    """A process and its children stand still."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in family:
        process.suspend()
    try:
        yield
    finally:
        for process in family:
            process.resume()


def test_a_step_that_hangs_keeps_no_worker_from_ending_and_is_not_held_against_the_model(stage: Stage) -> None:
    # Given steps that hang because MLflow does, when the workers are told to stop,
    version = ask(stage)
    row = reached(stage, version, "REQUESTED", "SNAPSHOT", "SCAN")
    with hanging(stage.pid("mlflow")):
        for worker in WORKERS:
            told = stage.pid(worker)
            os.kill(told, signal.SIGTERM)
            # then they end within their deadline,
            wait(functools.partial(restarted, stage, worker, told), DRAIN_SECONDS + 30, f"another {worker}")
    # and what they left is done by those who take their places.
    assert live_once(stage, version)["id"] == row["id"]
