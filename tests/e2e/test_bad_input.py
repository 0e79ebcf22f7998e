"""Whatever is wrong with a request ends in a state and a sentence, in `headgate show` and on the version in MLflow."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.pyfunc.model import PythonModel

from examples.airbnb.stage import Person, Stage, wait
from tests.e2e.models import register


@pytest.fixture(scope="module")
def stage(backing: Callable[[], dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    home = tmp_path_factory.mktemp("bad")
    (home / "policies").mkdir()
    for name in ("patient", "by-command"):  # these go live, and nobody has to wait for the default's soak
        (home / "policies" / f"{name}.yaml").write_text(
            f"model: {name}\nenvironments:\n  staging:\n    approvals: {{required: 0}}\n    rollout: {{soak: 1s}}\n"
        )
    with Stage(home / "up", home / "policies", backing()) as running:
        mlflow.set_tracking_uri(running.mlflow_uri)
        mlflow.set_experiment("bad-input")
        yield running


@pytest.fixture(scope="module")
def person(stage: Stage) -> Person:
    return stage.person("rita", "reviewer")


def ended(stage: Stage, person: Person, name: str, *states: str) -> dict[str, Any]:
    """Ask for version 1 in staging by alias, and wait for the promotion to reach one of the states."""
    stage.mlflow.set_registered_model_alias(name, "to-staging", "1")
    return reached(person, name, *states)


def reached(person: Person, name: str, *states: str) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        items = person.get("/api/v1/promotions", model=name)["items"]
        return items[0] if items and items[0]["state"] in states else None

    row = wait(found, 120, f"{states} of {name}")
    shown: dict[str, Any] = person.get(f"/api/v1/promotions/{row['id']}")
    return shown


def tagged(stage: Stage, name: str, status: str) -> str:
    """Wait until MLflow shows the status on version 1, and return the reason beside it."""
    wait(lambda: stage.tags(name, "1").get("headgate.status") == status, 60, f"the tag {status} on {name}")
    return stage.tags(name, "1").get("headgate.reason", "")


def test_a_model_without_a_signature_is_told_how_to_log_one(stage: Stage, person: Person) -> None:
    # Given a model logged without a signature, when it is asked for,
    register(stage.mlflow_uri, "no-signature", signature=False)
    found = ended(stage, person, "no-signature", "REJECTED", "FAILED", "LIVE")
    # then it is rejected with the remedy, for the reviewer and in MLflow.
    assert found["state"] == "REJECTED"
    assert "infer_signature" in found["reason"]
    assert "infer_signature" in tagged(stage, "no-signature", "rejected")
    shown = stage.run("show", str(found["id"]))
    assert "REJECTED" in shown.stdout and "infer_signature" in shown.stdout.replace("\n", "")


def test_a_package_that_is_not_allowed_is_named_by_file_and_line(stage: Stage, person: Person) -> None:
    # Given a model that says it needs a package which Headgate does not allow, when it is asked for,
    register(stage.mlflow_uri, "odd-package", packages=["scikit-learn", "iniconfig==2.0.0"])
    found = ended(stage, person, "odd-package", "REJECTED", "FAILED", "LIVE")
    # then it is rejected before anything of it is loaded, and everybody is told what to do.
    assert found["state"] == "REJECTED"
    assert "requirements.txt line 3 asks for the package 'iniconfig'" in found["reason"]
    assert "HEADGATE_ENVIRONMENT_PACKAGES" in tagged(stage, "odd-package", "rejected")


@pytest.mark.filterwarnings("ignore:.*type hints?:UserWarning")  # MLflow wants them, and warns where they are
def test_an_unsupported_flavor_is_named(stage: Stage, person: Person) -> None:
    class Echo(PythonModel):
        """A flavor that Headgate does not take."""

        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # MLflow reads hints
            return model_input

    mlflow.set_tracking_uri(stage.mlflow_uri)
    with mlflow.start_run():
        mlflow.pyfunc.log_model(
            name="model", python_model=Echo(), registered_model_name="odd-flavor", pip_requirements=["mlflow"]
        )
    found = ended(stage, person, "odd-flavor", "REJECTED", "FAILED", "LIVE")
    assert found["state"] == "REJECTED"
    assert "python_function" in found["reason"] or "cloudpickle" in found["reason"]


def test_missing_artifacts_are_told(stage: Stage, person: Person) -> None:
    # Given a version whose files have been deleted behind MLflow's back,
    register(stage.mlflow_uri, "no-artifacts")
    version = stage.mlflow.get_model_version("no-artifacts", "1")
    folder = next((stage.home / "mlflow" / "artifacts").rglob(str(version.source).rpartition("/")[2]))
    shutil.rmtree(folder)
    found = ended(stage, person, "no-artifacts", "REJECTED", "FAILED", "LIVE")
    assert found["state"] == "REJECTED"
    assert "artifact" in found["reason"]


def test_a_malformed_policy_names_the_line_and_retry_helps(stage: Stage, person: Person) -> None:
    policies = Path(stage.home).parent / "policies"
    policy = policies / "odd-policy.yaml"
    policy.write_text("model: odd-policy\nenvironments:\n  staging:\n    aprovals: {required: 0}\n")
    register(stage.mlflow_uri, "odd-policy")
    found = ended(stage, person, "odd-policy", "FAILED", "REJECTED", "LIVE")
    assert found["state"] == "FAILED"
    assert "line 4" in found["reason"] and "aprovals" in found["reason"]
    assert "line 4" in tagged(stage, "odd-policy", "failed")
    checked = stage.run("policy", "check", str(policy))
    assert checked.returncode == 1 and "line 4" in checked.stderr
    # When the file is mended, retrying leads on.
    policy.write_text(policy.read_text().replace("aprovals", "approvals"))
    assert stage.run("retry", str(found["id"])).returncode == 0
    assert reached(person, "odd-policy", "ROLLOUT", "LIVE", "FAILED")["state"] in ("ROLLOUT", "LIVE")


def test_unknown_names_are_answered_at_once(stage: Stage) -> None:
    unknown = stage.run("promote", "nobody", "1", "--to", "staging")
    assert unknown.returncode == 1 and "nobody" in unknown.stderr
    assert stage.run("show", "99999").returncode == 1
    assert stage.run("promote").returncode == 2
    moon = stage.run("promote", "odd-policy", "1", "--to", "moon")
    assert moon.returncode == 1 and "moon" in moon.stderr


def test_mlflow_down_is_waited_out(stage: Stage, person: Person) -> None:
    # Given a promotion that was asked for, when MLflow is killed and comes back,
    register(stage.mlflow_uri, "patient")
    stage.mlflow.set_registered_model_alias("patient", "to-staging", "1")
    stage.kill("mlflow")
    # then it goes on by itself (the supervisor starts MLflow again).
    assert reached(person, "patient", "LIVE", "FAILED", "REJECTED")["state"] == "LIVE"
    wait(lambda: stage.aliases("patient").get("staging") == "1", 60, "the alias staging")


def test_waiting_tells_how_it_ended_by_its_exit_code(stage: Stage) -> None:
    register(stage.mlflow_uri, "by-command")
    gone_live = stage.run("promote", "by-command", "1", "--to", "staging", "--wait", "--timeout", "120", "--json")
    assert gone_live.returncode == 0, gone_live.stderr
    assert json.loads(gone_live.stdout)["state"] == "LIVE"
    register(stage.mlflow_uri, "refused", signature=False)
    assert stage.run("promote", "refused", "1", "--to", "staging", "--wait", "--timeout", "120").returncode == 10
    register(stage.mlflow_uri, "slow")
    waiting = stage.run("promote", "slow", "1", "--to", "production", "--wait", "--timeout", "1")
    assert waiting.returncode == 16
    number = json.loads(stage.run("status", "--model", "slow", "--json").stdout)["items"][0]["id"]
    assert stage.run("cancel", str(number), "--reason", "enough").returncode == 0
    assert stage.run("watch", str(number), "--timeout", "60").returncode == 13


def test_the_doctor_finds_everything_well(stage: Stage) -> None:
    found = stage.run("doctor")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "all is well" in found.stdout
    secret = (stage.home / "webhook.secret").read_text().strip()
    assert secret not in found.stdout


def test_a_taken_port_is_named_with_its_setting(stage: Stage, tmp_path: Path) -> None:
    import subprocess
    import sys

    second = subprocess.run(
        [sys.executable, "-m", "app.up"],
        env={**stage.environment, "HEADGATE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert second.returncode == 1
    assert "is taken" in second.stderr and "HEADGATE_" in second.stderr


def test_a_server_that_does_not_start_fails_with_its_own_words(
    backing: Callable[[], dict[str, str]], tmp_path: Path
) -> None:
    # Given an installation whose Triton folder is empty,
    settings = {**backing(), "HEADGATE_TRITON_DIR": str(tmp_path / "nothing")}
    (tmp_path / "policies").mkdir()
    with Stage(tmp_path / "up", tmp_path / "policies", settings) as running:
        register(running.mlflow_uri, "unserved")
        # when a model is asked for, then it fails within a minute, and says what to do.
        begin = time.monotonic()
        found = ended(running, running.admin, "unserved", "FAILED", "LIVE", "REJECTED")
        assert found["state"] == "FAILED"
        assert "riton" in found["reason"], found["reason"]
        assert "riton" in tagged(running, "unserved", "failed")
        assert time.monotonic() - begin < 120
        sick = running.run("doctor")
        assert sick.returncode == 1 and "FAIL" in sick.stdout
