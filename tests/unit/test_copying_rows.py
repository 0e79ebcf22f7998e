"""Judging rows on their way into the store: files, buckets, datasets of the champion's run or of the policy's."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.db.session import Database
from app.domain.digests import digest_bytes
from app.domain.policy import Approvals, Data, Rollout, default_policy
from app.ports import Dataset
from tests.fakes import quick
from tests.plant import MODEL, World

ROWS = b"x,price\n1,1\n"
RUN = "0" * 32


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


def ask(world: World, version: str, data: Data) -> dict[str, Any]:
    policy = quick(
        default_policy(MODEL),
        "staging",
        data=data,
        approvals=Approvals(required=0),
        rollout=Rollout(soak=timedelta(0)),
    )
    world.policies.known[MODEL] = policy
    return world.run(world.ask(version, "staging"))


def test_rows_in_a_bucket_are_pinned_by_their_digest(world: World) -> None:
    world.buckets.objects["s3://rows/holdout.csv"] = ROWS
    shown = ask(world, "1", Data("s3://rows/holdout.csv", "price"))
    assert shown["state"] == "LIVE"
    snapshot = shown["evidence"]["snapshot"]
    assert snapshot["data"] == digest_bytes(ROWS)
    assert snapshot["data_from"] == {"uri": "s3://rows/holdout.csv"}
    assert world.store.file(snapshot["data"]).read_bytes() == ROWS


def test_the_dataset_of_a_run_that_the_policy_names(world: World) -> None:
    world.registry.datasets[(RUN, "holdout")] = Dataset("holdout", "abc", "mlflow-artifacts:/1/rows.csv")
    world.registry.served["mlflow-artifacts:/1/rows.csv"] = ROWS
    snapshot = ask(world, "1", Data(f"dataset:{RUN}/holdout", "price"))["evidence"]["snapshot"]
    assert snapshot["data"] == digest_bytes(ROWS)
    assert snapshot["data_from"]["mlflow_digest"] == "abc"


def test_the_champions_dataset_is_that_of_the_version_that_serves(world: World) -> None:
    # Given a first release, judged on rows of its own,
    world.buckets.objects["s3://rows/first.csv"] = ROWS
    assert ask(world, "1", Data("s3://rows/first.csv", "price"))["state"] == "LIVE"
    # when the next one is judged on the champion's, then it is the champion's run that is asked.
    world.registry.datasets[("run", "holdout")] = Dataset("holdout", "abc", "s3://rows/first.csv")
    asked: list[tuple[str, str]] = []
    find = world.registry.dataset

    def seen(run_id: str, name: str) -> Dataset:
        asked.append((run_id, name))
        return find(run_id, name)

    world.registry.dataset = seen  # type: ignore[method-assign]
    shown = ask(world, "2", Data("dataset:champion/holdout", "price"))
    assert shown["state"] == "LIVE"
    assert shown["evidence"]["snapshot"]["data_from"]["file"] == "s3://rows/first.csv"
    assert asked == [("run", "holdout")]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (Data("dataset:champion/holdout", "price"), "nothing is live yet. Name a run"),
        (Data(f"dataset:{RUN}/holdout", "price"), "has logged 0 different datasets"),
        (Data("s3://rows/gone.csv", "price"), "is not there"),
        (Data("nowhere.csv", "price"), "are not there"),
        (Data("http://somewhere/rows.csv", "price"), "'http' is unknown"),
        (Data("s3://rows/holdout.csv", "price", digest="sha256:" + "1" * 64), "the policy asks for sha256:1111"),
    ],
)
def test_rows_that_cannot_be_had_are_our_fault(world: World, data: Data, words: str) -> None:
    world.buckets.objects["s3://rows/holdout.csv"] = ROWS
    shown = ask(world, "1", data)
    assert shown["state"] == "SNAPSHOT"
    assert words in shown["last_error"]


def test_the_seed_of_the_policy_draws_the_rows(world: World) -> None:
    world.buckets.objects["s3://rows/holdout.csv"] = ROWS
    seeds: list[int] = []
    world.sandbox.before = lambda job: seeds.append(job.request["rows"]["seed"]) if "rows" in job.request else None
    ask(world, "1", Data("s3://rows/holdout.csv", "price", seed=7))
    assert seeds == [7, 7]
