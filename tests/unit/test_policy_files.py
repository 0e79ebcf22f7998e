"""Policy files: what is read, and what each mistake is told."""

import json
import re
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import Invalid
from app.domain.freeze import Freeze
from app.domain.policy import (
    BreakGlass,
    ChampionGate,
    LatencyGate,
    MetricGate,
    OwnGate,
    RobustnessGate,
    SchemaGate,
    SlicesGate,
    default_policy,
)
from app.policy_files import PolicyFolder, freeze, parse, thaw
from app.policy_models import PolicyFile, parse_duration

FULL = """\
model: airbnb-price
environments:
  production:
    triggers: {alias: to-production, stage: Production}
    data: {uri: "file:///data.csv", label: price, rows: 5000}
    parity: {rtol: 1.0e-4, max_wrong_rows: 0}
    gates:
      - {kind: metric, name: rmse, max: 0.55}
      - {kind: champion, name: rmse, max_regression: 0.02}
      - {kind: latency, p99_ms: 10, batch: 1}
    approvals: {required: 1, roles: [reviewer], expires: 72h, prevent_self_review: true}
    rollout: {steps: [10, 50, 100], soak: 30s, guardrails: {error_rate: 0.01, p99_ms: 50}}
    target: {kind: docker, instance: gpu, count: 1}
"""


def test_the_documented_example_is_read() -> None:
    production = parse(FULL).environments["production"]
    assert production.gates == (MetricGate("rmse", max=0.55), ChampionGate("rmse", 0.02), LatencyGate(10.0))
    assert production.approvals.expires == timedelta(hours=72)
    assert production.rollout.soak == timedelta(seconds=30)
    assert production.target.instance == "gpu"


TIMES = """\
model: m
environments:
  production:
    approvals: {roles: [reviewer, admin], by_role: {reviewer: 1, admin: 1}, fresh: 15m, exclude_trainer: false}
    freeze:
      - {days: [fri, sat], start: "16:00", end: "08:00", zone: Europe/Berlin, reason: nobody is there}
      - {from: 2026-12-20, to: 2027-01-02, end: "24:00", reason: the holidays}
    break_glass: {within: 10m}
"""


def test_who_approves_and_when_nothing_moves_is_read() -> None:
    found = parse(TIMES).environments["production"]
    assert (found.approvals.by_role, found.approvals.fresh) == ({"reviewer": 1, "admin": 1}, timedelta(minutes=15))
    assert not found.approvals.exclude_trainer
    assert found.freeze == (
        Freeze("nobody is there", "Europe/Berlin", ("fri", "sat"), start="16:00", end="08:00"),
        Freeze("the holidays", first=date(2026, 12, 20), last=date(2027, 1, 2)),
    )
    assert found.break_glass == BreakGlass(timedelta(minutes=10))
    assert thaw(freeze(found)) == found
    assert parse(TIMES.replace("{within: 10m}", "false")).environments["production"].break_glass is None


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('start: "16:00"', "start: 16:00", ["line 6", "in quotes"]),
        ('start: "16:00"', 'start: "24:00"', ["line 6", "start"]),
        ("zone: Europe/Berlin", "zone: ../../etc/passwd", ["line 6", "IANA"]),
        ("days: [fri, sat]", "days: [friday]", ["line 6", "'fri'"]),
        ("days: [fri, sat], ", "", ["line 6", "give days, or both from and to"]),
        ("to: 2027-01-02", "to: 2026-12-19", ["line 7", "to must come after from"]),
        ("roles: [reviewer, admin]", "roles: [reviewer]", ["line 4", "by_role names admin"]),
        ("{within: 10m}", "{within: 2d}", ["line 8", "at most 1d"]),
    ],
)
def test_each_mistake_in_them_names_its_line(old: str, new: str, words: list[str]) -> None:
    with pytest.raises(Invalid) as caught:
        parse(TIMES.replace(old, new, 1), "m.yaml")
    assert all(re.search(word, str(caught.value)) for word in words), str(caught.value)


def test_an_environment_without_triggers_has_its_alias() -> None:
    found = parse("model: m\nenvironments:\n  eu-west:\n    approvals: {required: 0}\n")
    assert found.environment_of_alias("to-eu-west") == "eu-west"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("p99_ms: 10", "p99: 10", ["line 10", "unknown key"]),
        ("max: 0.55", "", ["line 8", "give max or min"]),
        ("soak: 30s", "soak: 30", ["line 12", "30s, 10m"]),
        ("[10, 50, 100]", "[50, 10, 100]", ["line 12", "must ascend"]),
        ("[10, 50, 100]", "[10, 50]", ["line 12", "end with 100"]),
        ("error_rate: 0.01", "error_rate: 5", ["line 12", "less than or equal to 1"]),
        ("roles: [reviewer]", "roles: [boss]", ["line 11", "'reviewer' or 'admin'"]),
        ("kind: champion", "kind: chmpion", ["line 9", "champion"]),
        ("name: rmse, max", "name: rsme, max", ["line 8", "rmse"]),
        ("environments:", "enviroments:", ["line 2", "unknown key"]),
        ("model: airbnb-price", "model: 'a b'", ["line 1"]),
        ("gates:", "gates: [", ["not valid YAML"]),
    ],
)
def test_each_mistake_names_its_line(old: str, new: str, words: list[str]) -> None:
    with pytest.raises(Invalid) as caught:
        parse(FULL.replace(old, new, 1), "airbnb-price.yaml")
    assert all(word in str(caught.value) for word in ["airbnb-price.yaml", *words])


@pytest.mark.parametrize("text", ["", "[]", "just words", "model: m\n"])
def test_a_file_that_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse(text)


@given(st.text(max_size=200))
def test_no_text_at_all_gets_past_with_another_error(text: str) -> None:
    try:
        parse(text)
    except Invalid as error:
        assert str(error)


@given(st.integers(0, 10_000), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_durations(number: int, unit: str) -> None:
    seconds = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
    assert parse_duration(f"{number}{unit}") == timedelta(seconds=number * seconds)


def test_what_is_frozen_comes_back() -> None:
    for environment in [*default_policy("m").environments.values(), parse(FULL).environments["production"]]:
        assert thaw(freeze(environment)) == environment


def test_a_folder_gives_files_and_the_default(tmp_path: Path) -> None:
    (tmp_path / "airbnb-price.yaml").write_text(FULL)
    (tmp_path / "other.yaml").write_text(FULL)
    folder = PolicyFolder(tmp_path)
    assert list(folder.policy("airbnb-price").environments) == ["production"]
    assert folder.policy("unknown") == default_policy("unknown")
    assert folder.policy("../airbnb-price") == default_policy("../airbnb-price")
    with pytest.raises(Invalid, match="named after other"):
        folder.policy("other")


def test_the_schema_is_published() -> None:
    schema = PolicyFile.model_json_schema()
    assert schema["additionalProperties"] is False
    assert {"model", "environments"} == set(schema["properties"])
    published = Path(__file__).parents[2] / "docs" / "policy.schema.json"
    assert json.loads(published.read_text()) == schema, "run: headgate policy schema > docs/policy.schema.json"


GATES = """\
model: m
environments:
  production:
    gates:
      - {kind: slices, by: [borough, room], name: rmse, max_ratio: 1.6}
      - {kind: schema}
      - {kind: robustness, max_change: 0.05}
      - {kind: own, name: fairness, options: {max_gap: 0.1, groups: [a, b]}}
"""


def test_every_kind_of_gate_is_read_and_comes_back() -> None:
    production = parse(GATES).environments["production"]
    assert production.gates == (
        SlicesGate(("borough", "room"), "rmse", 1.6, 50),
        SchemaGate(),
        RobustnessGate(0.05, 0.01),
        OwnGate("fairness", {"max_gap": 0.1, "groups": ["a", "b"]}),
    )
    assert thaw(freeze(production)) == production


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("by: [borough, room]", "by: []", ["line 5", "by"]),
        ("name: rmse", "name: r2", ["line 5", "name"]),
        ("max_ratio: 1.6", "max_ratio: 0.5", ["line 5", "greater than or equal to 1"]),
        ("{kind: schema}", "{kind: schema, strict: true}", ["line 6", "unknown key"]),
        ("max_change: 0.05", "nudge: 0.1", ["line 7", "max_change"]),
        ("max_gap: 0.1", "max_gap: .nan", ["line 8", "options"]),
        ("max_gap: 0.1", "since: 2026-01-01", ["line 8", "options"]),
    ],
)
def test_mistakes_in_gates_name_their_line(old: str, new: str, words: list[str]) -> None:
    with pytest.raises(Invalid) as caught:
        parse(GATES.replace(old, new, 1))
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "holdout.csv",
        "file:///srv/rows%201.parquet",
        "s3://rows/a/b.csv",
        "dataset:champion/holdout",
        f"dataset:{'0' * 32}/a b",
    ],
)
def test_where_judging_rows_may_lie(uri: str) -> None:
    data = parse(FULL.replace("file:///data.csv", uri)).environments["production"].data
    assert data is not None and data.uri == uri


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("https://rows.example/a.csv", "the scheme 'https' is unknown"),
        ("mlflow-artifacts:/1/a.csv", "unknown"),
        ("s3://rows", "write s3://<bucket>/<key>"),
        ("s3:/rows/a.csv", "write s3://"),
        ("dataset:challenger/holdout", "dataset:champion/<name>"),
        ("dataset:champion", "dataset:<run id>/<name>"),
        ("", "at least 1 character"),
    ],
)
def test_judging_rows_anywhere_else_are_refused_with_their_line(uri: str, words: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(FULL.replace("file:///data.csv", uri))
    assert "line 5: environments.production.data.uri" in str(caught.value)
    assert words in str(caught.value)


def test_an_environment_may_be_named_as_a_part_of_the_file_is() -> None:
    with pytest.raises(Invalid, match=r"line 4: environments\.gates\.parity\.rtol"):
        parse("model: m\nenvironments:\n  gates:\n    parity: {rtol: 9}\n")
